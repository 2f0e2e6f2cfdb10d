"""What waits to be drawn, and the thread that draws: pictures join a running batch and leave it step by step."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from dreambooth_server.drawing import Cancelled, Drawing
from dreambooth_server.engine import Engine
from dreambooth_server.turns import Turns

log = logging.getLogger(__name__)
_RECENT = 0.05


class Full(Exception):
    """Too much waits already; `retry_after` estimates when there will be room, seconds."""

    def __init__(self, retry_after: float) -> None:
        super().__init__("too many requests are waiting")
        self.retry_after = retry_after


@dataclass(eq=False)
class Ticket:
    """One request in the line."""

    drawings: Sequence[Drawing]
    progress: Callable[[int, int], None] | None = None
    """Told, by the drawing thread, how many steps are done and how many there are."""
    pictures: "Future[list[Image.Image]]" = field(default_factory=Future)
    abandoned: threading.Event = field(default_factory=threading.Event)
    since: float = field(default_factory=time.monotonic)
    begun: int = 0
    """Drawings whose work has begun."""
    drawn: dict[int, Image.Image] = field(default_factory=dict)
    steps: int = 0

    @property
    def subject(self) -> str:
        """Who it is for."""
        return self.drawings[0].model

    @property
    def cost(self) -> float:
        """Work that has not begun."""
        return sum(drawing.cost for drawing in self.drawings[self.begun :])

    def abandon(self) -> None:
        """Nobody waits any more: it leaves the line, or its work stops at the next step."""
        self.pictures.cancel()
        self.abandoned.set()


@dataclass(eq=False)
class _Work:
    """A picture that is being drawn."""

    ticket: Ticket
    place: int
    run: Any


class Line:
    """Bounded lines in front of an engine, one for each subject."""

    def __init__(
        self,
        engine: Engine,
        capacity: int,
        waited: Callable[[float], None] = lambda seconds: None,
        patience: float = 30.0,
    ) -> None:
        """At most `capacity` requests wait, and none that is likely to wait longer than `patience` seconds.

        `waited` is told how long each ticket waited before its work began, seconds.
        """
        self._engine, self._capacity, self._waited, self._patience = engine, capacity, waited, patience
        self._turns: Turns[Ticket] = Turns()
        self._works: list[_Work] = []
        self._pace: float | None = None
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="drawing", daemon=True)
        self._thread.start()

    def submit(self, drawings: Sequence[Drawing], progress: Callable[[int, int], None] | None = None) -> Ticket:
        """Join the line. Raises Full; in fairness it may be somebody else's last request that must go instead."""
        ticket = Ticket(tuple(drawings), progress)
        with self._changed:
            wait = self._seconds_ahead()
            if len(self._turns) >= self._capacity or wait > self._patience:
                leaves = self._turns.displaced_by(ticket)
                full = Full(max(1.0, wait - self._patience / 2))
                if leaves is ticket or leaves.begun:
                    raise full
                self._turns.remove(leaves)
                if leaves.pictures.set_running_or_notify_cancel():
                    leaves.pictures.set_exception(full)
            self._turns.add(ticket)
            self._changed.notify()
        return ticket

    def close(self) -> None:
        """Finish what waits, then end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _seconds_ahead(self) -> float:
        """How long the work takes that is here, at the measured pace; 0 while nothing was measured."""
        begun = sum(work.run.drawing.cost - work.run.done * work.run.drawing.step_cost for work in self._works)
        return (begun + sum(ticket.cost for ticket in self._turns)) * (self._pace or 0.0)

    def _work(self) -> None:
        while True:
            with self._changed:
                while not (self._works or len(self._turns) or self._closed):
                    self._changed.wait()
                if self._closed and not self._works and not len(self._turns):
                    return
            try:
                self._turn()
            except Exception as e:  # The thread's edge: what is being drawn fails, and the next is served.
                log.exception("drawing failed")
                for work in list(self._works):
                    self._fail(work.ticket, e)

    def _turn(self) -> None:
        self._leave()
        self._admit()
        if self._works:
            self._step()
        if not self._works:
            self._engine.warm_up()

    def _leave(self) -> None:
        """What nobody waits for goes."""
        with self._changed:
            for ticket in [ticket for ticket in self._turns if ticket.abandoned.is_set()]:
                self._turns.remove(ticket)
                if not ticket.pictures.cancelled():
                    ticket.pictures.set_exception(Cancelled())
        for work in [work for work in self._works if work.ticket.abandoned.is_set()]:
            self._fail(work.ticket, Cancelled())

    def _admit(self) -> None:
        """Pictures begin as long as whoever has the turn can join: nobody overtakes for ever who fits better."""
        while True:
            with self._changed:
                ticket = self._turns.first()
                if ticket is None:
                    return
                place = ticket.begun
                drawing = ticket.drawings[place]
            if self._works and not self._engine.joins(drawing, [work.run for work in self._works]):
                return
            with self._changed:
                # While nobody held the lock it may have been displaced.
                if ticket is not self._turns.first():
                    continue
                ticket.begun += 1
                self._turns.served(ticket, through=ticket.begun == len(ticket.drawings))
            self._begin(ticket, place, drawing)

    def _begin(self, ticket: Ticket, place: int, drawing: Drawing) -> None:
        if place == 0:
            self._waited(time.monotonic() - ticket.since)
            if not ticket.pictures.set_running_or_notify_cancel():
                self._fail(ticket, Cancelled())
        if ticket.pictures.done():
            return
        try:
            self._works.append(_Work(ticket, place, self._engine.begin(drawing)))
        except Exception as e:  # A request's edge: it fails alone.
            self._fail(ticket, e)

    def _step(self) -> None:
        begun, cost = time.monotonic(), sum(work.run.drawing.step_cost for work in self._works)
        self._engine.step([work.run for work in self._works])
        for work in list(self._works):
            self._follow(work)
        pace = (time.monotonic() - begun) / cost
        self._pace = pace if self._pace is None else self._pace + _RECENT * (pace - self._pace)

    def _follow(self, work: _Work) -> None:
        """What one picture's step led to."""
        ticket, run = work.ticket, work.run
        if work not in self._works:
            return
        if run.fault is not None:
            self._fail(ticket, run.fault)
            return
        ticket.steps += 1
        if ticket.progress:
            ticket.progress(ticket.steps // len(ticket.drawings), run.drawing.steps)
        if run.finished:
            self._deliver(work)

    def _deliver(self, work: _Work) -> None:
        try:
            work.ticket.drawn[work.place] = self._engine.finish(work.run)
        except Exception as e:  # A request's edge: it fails alone.
            self._fail(work.ticket, e)
            return
        self._works.remove(work)
        self._engine.end(work.run)
        if len(work.ticket.drawn) == len(work.ticket.drawings):
            work.ticket.pictures.set_result([work.ticket.drawn[place] for place in range(len(work.ticket.drawings))])

    def _fail(self, ticket: Ticket, why: Exception) -> None:
        """One of its pictures cannot be had, so the request fails with all of them."""
        for work in [work for work in self._works if work.ticket is ticket]:
            self._works.remove(work)
            self._engine.end(work.run)
        with self._changed:
            if ticket in set(self._turns):
                self._turns.remove(ticket)
        if not ticket.pictures.done():
            if not isinstance(why, Cancelled):
                log.warning("a drawing failed: %s: %s", type(why).__name__, why)
            ticket.pictures.set_exception(why)
