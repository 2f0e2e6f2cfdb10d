"""Gives each request a replica: at once, or when one has room or is there at all; fairly between subjects.

Everything here runs on one event loop, so nothing needs a lock.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from dreambooth_api.routes import Replica, Route, Target
from dreambooth_api.serving import ServingMode
from dreambooth_server.errors import ApiError
from dreambooth_server.gateway.choice import SPARE, Shares, pick_dedicated, pick_shared
from dreambooth_server.gateway.table import Subject, Table
from dreambooth_server.gateway.tally import Tally

_RETRY_FULL, _RETRY_ASLEEP = "2", "10"


@dataclass(eq=False)
class Ask:
    """One request's need of a replica."""

    subject: Subject
    pinned: str | None = None
    """The revision that the client named."""
    target: Target | None = None
    """The artifact that it is to be drawn from."""
    avoid: set[str] = field(default_factory=set)
    """Addresses that failed it: taken again only where there is nothing else."""
    shunned: set[str] = field(default_factory=set)
    """Digests that failed it."""


@dataclass(eq=False)
class Lease:
    """A replica's room for one request, until it is given back."""

    route: Route
    target: Target
    replica: Replica


@dataclass(eq=False)
class _Waiter:
    ask: Ask
    lease: "asyncio.Future[Lease]"

    def has_lease(self) -> bool:
        return self.lease.done() and not self.lease.cancelled() and self.lease.exception() is None


class Dispatcher:
    """Hands out leases."""

    def __init__(self, table: Table, tally: Tally, queue: int) -> None:
        self._table, self._tally, self._queue = table, tally, queue
        self._load: Counter[str] = Counter()
        self._cooling: dict[tuple[str, Subject | None], float] = {}
        self._shares: dict[Subject, Shares] = {}
        self._lines: dict[str, dict[Subject, deque[_Waiter]]] = {}
        self._turn = 0
        self.needed = asyncio.Event()
        """Set when a request begins to wait for a backend that has no replica."""

    async def acquire(self, ask: Ask, seconds: float) -> Lease:
        """A lease within `seconds`. Raises ApiError: 404, 503 as Table does, 429 or 503 when it takes too long.

        A request that comes again (`ask.avoid`) goes before those that wait already.
        """
        route = self._aim(ask)
        backend = _backend(ask)
        first = ask.avoid or not self._lines.get(backend, {}).get(ask.subject)
        if first and (replica := self._room(ask, route)):
            return self._lend(ask, route, replica)
        if self._tally.waiting[ask.subject] >= self._queue:
            raise _full("Too many requests for the model are waiting.", "queue_full")
        waiter = _Waiter(ask, asyncio.get_running_loop().create_future())
        self._join(waiter)
        try:
            async with asyncio.timeout(seconds):
                return await waiter.lease
        except (TimeoutError, asyncio.CancelledError) as e:
            if waiter.has_lease():
                # It came in the very moment.
                if isinstance(e, TimeoutError):
                    return waiter.lease.result()
                self.release(waiter.lease.result())
            if isinstance(e, TimeoutError):
                raise self._too_late(ask) from None
            raise
        finally:
            self._leave(waiter)

    def release(self, lease: Lease) -> None:
        """The replica is done with the request."""
        self._load[lease.replica.address] -= 1
        if not self._load[lease.replica.address]:
            del self._load[lease.replica.address]
        self._tally.work(_subject(lease.route), lease.target.backend, -1)
        self._pump(lease.target.backend)

    def cool(self, lease: Lease, seconds: float, everybody: bool) -> None:
        """Send nothing to the replica for `seconds`: nothing of this subject, or of anybody."""
        key = (lease.replica.address, None if everybody else _subject(lease.route))
        self._cooling[key] = time.monotonic() + seconds
        asyncio.get_running_loop().call_later(seconds, self._warm, key, lease.target.backend)

    def _warm(self, key: tuple[str, Subject | None], backend: str) -> None:
        if self._cooling.get(key, float("inf")) <= time.monotonic():
            del self._cooling[key]
        self._pump(backend)

    def routes_changed(self) -> None:
        """The table is another: whoever waits aims anew."""
        waiters = [waiter for line in self._lines.values() for waiting in line.values() for waiter in waiting]
        for waiter in waiters:
            self._leave(waiter)
            try:
                self._aim(waiter.ask)
            except ApiError as error:
                if not waiter.lease.done():
                    waiter.lease.set_exception(error)
            else:
                self._join(waiter)
        self._shares = {subject: shares for subject, shares in self._shares.items() if subject in self._table.routes}
        self._tally.keep(self._table.routes)
        for backend in list(self._lines):
            self._pump(backend)

    def _aim(self, ask: Ask) -> Route:
        """Give `ask` a target of the present route: the one that it has, if that is still there. Raises ApiError."""
        route = self._table.route(ask.subject)
        targets = self._table.targets(route, ask.pinned)
        kept = [target for target in targets if ask.target and target.digest == ask.target.digest]
        if kept and kept[0].digest not in ask.shunned:
            ask.target = kept[0]
            return route
        # A revision without replicas is no revision to wait for while another has some.
        wanted = [t for t in targets if (t.weight or ask.pinned) and t.digest not in ask.shunned] or list(targets)
        awake = [target for target in wanted if self._table.replicas(target.backend)] or wanted
        ask.target = self._shares.setdefault(ask.subject, Shares()).pick(awake) if len(awake) > 1 else awake[0]
        return route

    def _room(self, ask: Ask, route: Route) -> Replica | None:
        assert ask.target is not None
        there = [r for r in self._table.replicas(ask.target.backend) if not self._is_cooling(r, ask.subject)]
        for replicas in ([r for r in there if r.address not in ask.avoid], there):
            if found := self._pick(ask.target, replicas, route):
                return found
        return None

    def _pick(self, target: Target, replicas: Sequence[Replica], route: Route) -> Replica | None:
        def load(replica: Replica) -> int:
            return self._load[replica.address]

        if route.mode is ServingMode.SHARED:
            return pick_shared(target.digest, replicas, route.target_in_flight, load)
        # Of equals not always the first.
        self._turn += 1
        start = self._turn % len(replicas) if replicas else 0
        return pick_dedicated([*replicas[start:], *replicas[:start]], route.target_in_flight, load)

    def _is_cooling(self, replica: Replica, subject: Subject) -> bool:
        return (replica.address, None) in self._cooling or (replica.address, subject) in self._cooling

    def _lend(self, ask: Ask, route: Route, replica: Replica) -> Lease:
        assert ask.target is not None
        self._load[replica.address] += 1
        self._tally.work(ask.subject, ask.target.backend, 1)
        return Lease(route, ask.target, replica)

    def _join(self, waiter: _Waiter) -> None:
        backend = _backend(waiter.ask)
        line = self._lines.setdefault(backend, {}).setdefault(waiter.ask.subject, deque())
        if waiter.ask.avoid:
            line.appendleft(waiter)
        else:
            line.append(waiter)
        self._tally.wait(waiter.ask.subject, backend, 1)
        if not self._table.replicas(backend) and self._tally.backends[backend] == 1:
            self.needed.set()

    def _leave(self, waiter: _Waiter) -> None:
        subject, backend = waiter.ask.subject, _backend(waiter.ask)
        line = self._lines.get(backend, {})
        if waiter not in line.get(subject, ()):
            return
        line[subject].remove(waiter)
        if not line[subject]:
            del line[subject]
        if not line:
            del self._lines[backend]
        self._tally.wait(subject, backend, -1)

    def _pump(self, backend: str) -> None:
        """Lend what room there is, one request of each subject in turn."""
        while self._has_room(backend) and any(self._serve_first(waiting) for waiting in self._in_turn(backend)):
            pass

    def _has_room(self, backend: str) -> bool:
        """Whether to look closer: the subjects of a backend have the same replicas and the same `target_in_flight`."""
        waiting = (self._table.routes.get(subject) for subject in self._lines.get(backend, ()))
        most = SPARE * next((route.target_in_flight for route in waiting if route), 0)
        return any(self._load[replica.address] < most for replica in self._table.replicas(backend))

    def _in_turn(self, backend: str) -> Iterator[deque[_Waiter]]:
        for subject in list(self._lines.get(backend, {})):
            line = self._lines.get(backend, {})
            if subject in line:
                # Served or not, the others come first the next time.
                line[subject] = line.pop(subject)
                yield line[subject]

    def _serve_first(self, waiting: deque[_Waiter]) -> bool:
        waiter = waiting[0]
        if waiter.lease.done():
            # Its client went away a moment ago.
            self._leave(waiter)
            return True
        route = self._table.routes.get(waiter.ask.subject)
        replica = self._room(waiter.ask, route) if route else None
        if route is None or replica is None:
            return False
        self._leave(waiter)
        waiter.lease.set_result(self._lend(waiter.ask, route, replica))
        return True

    def _too_late(self, ask: Ask) -> ApiError:
        if self._table.replicas(_backend(ask)):
            return _full("All replicas of the model were busy for too long.", "overloaded")
        message = "No replica of the model was ready in time."
        return ApiError(503, message, "no_replica", headers={"Retry-After": _RETRY_ASLEEP})


def _full(message: str, code: str) -> ApiError:
    return ApiError(429, message, code, headers={"Retry-After": _RETRY_FULL})


def _subject(route: Route) -> Subject:
    return route.namespace, route.name


def _backend(ask: Ask) -> str:
    assert ask.target is not None
    return ask.target.backend
