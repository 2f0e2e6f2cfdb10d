"""What waits to be drawn: a bounded line, and the thread that works it off. Batching across requests belongs here."""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from PIL import Image

from dreambooth_server.drawing import Drawing
from dreambooth_server.engine import Engine

_RECENT = 0.2


class Full(Exception):
    """Too many wait already; `retry_after` estimates when there will be room, seconds."""

    def __init__(self, retry_after: float) -> None:
        super().__init__("too many requests are waiting")
        self.retry_after = retry_after


@dataclass(frozen=True)
class Ticket:
    """One request in the line."""

    drawings: Sequence[Drawing]
    pictures: "Future[list[Image.Image]]" = field(default_factory=Future)
    abandoned: threading.Event = field(default_factory=threading.Event)
    since: float = field(default_factory=time.monotonic)

    def abandon(self) -> None:
        """Nobody waits any more: it leaves the line, or its work stops at the next step."""
        self.pictures.cancel()
        self.abandoned.set()


class Line:
    """A bounded queue in front of an engine."""

    def __init__(self, engine: Engine, capacity: int, waited: Callable[[float], None] = lambda seconds: None) -> None:
        """`waited` is told how long each ticket waited before its work began, seconds."""
        self._engine = engine
        self._waiting: queue.Queue[Ticket | None] = queue.Queue(capacity)
        self._waited = waited
        self._mean_seconds = 1.0
        self._thread = threading.Thread(target=self._work, name="drawing", daemon=True)
        self._thread.start()

    def submit(self, drawings: Sequence[Drawing]) -> Ticket:
        """Join the line. Raises Full."""
        ticket = Ticket(tuple(drawings))
        try:
            self._waiting.put_nowait(ticket)
        except queue.Full as e:
            raise Full(self._mean_seconds * (self._waiting.qsize() + 1)) from e
        return ticket

    def close(self) -> None:
        """Finish what waits, then end the thread."""
        self._waiting.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (ticket := self._waiting.get()) is not None:
            self._waited(time.monotonic() - ticket.since)
            if not ticket.pictures.set_running_or_notify_cancel():
                continue
            started = time.monotonic()
            try:
                ticket.pictures.set_result(self._engine.draw(ticket.drawings, ticket.abandoned.is_set))
            except Exception as e:  # The thread's edge: the request fails alone, and the next one is served.
                ticket.pictures.set_exception(e)
            spent = time.monotonic() - started
            self._mean_seconds += _RECENT * (spent - self._mean_seconds)
