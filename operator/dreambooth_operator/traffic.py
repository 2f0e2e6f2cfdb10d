"""What gateways report, taken together: how much is asked of a subject now, and how its artifacts did. No I/O.

Nothing of it is kept over a restart. What a gateway counted before it was first heard counts, too: whoever leads anew
judges a canary by all that its gateways saw of it.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from dreambooth_api.routes import BOUNDS, REPORT_SECONDS, GatewayReport, Load, Traffic

# A gateway that was not heard for so long is forgotten with what it had counted, seconds.
FORGET_SECONDS = 600.0
NOTHING = Traffic(requests=0, errors=0, durations=[0] * (len(BOUNDS) + 1))


class Demand(NamedTuple):
    """How much is asked for. `known`: every gateway that lives has been heard. `idle`: seconds since the last
    request."""

    known: bool = False
    waiting: int = 0
    in_flight: int = 0
    idle: float = 0.0


UNKNOWN = Demand()


@dataclass
class _Gateway:
    first: float
    heard: float
    draining: bool = False
    loads: dict[str, Load] = field(default_factory=dict)
    counted: dict[tuple[str, str], Traffic] = field(default_factory=dict)


def minus(one: Traffic, other: Traffic) -> Traffic:
    """What `one` has beyond `other`; all of it when it has less, because its counter began anew."""
    if one.requests < other.requests:
        return one
    durations = [max(0, a - b) for a, b in zip(one.durations, other.durations, strict=True)]
    errors = max(0, one.errors - other.errors)
    return Traffic(requests=one.requests - other.requests, errors=errors, durations=durations)


def plus(one: Traffic, other: Traffic) -> Traffic:
    """Both together."""
    durations = [a + b for a, b in zip(one.durations, other.durations, strict=True)]
    return Traffic(requests=one.requests + other.requests, errors=one.errors + other.errors, durations=durations)


class Gateways:
    """All gateways' words. Times are of the monotonic clock."""

    def __init__(self, begun: float) -> None:
        self._begun = begun
        self._of: dict[str, _Gateway] = {}
        self._totals: dict[str, dict[str, Traffic]] = {}

    def take(self, report: GatewayReport, now: float) -> None:
        """A gateway's word takes the place of its last one; its counters add to the totals."""
        gone = [name for name, found in self._of.items() if now - found.heard > FORGET_SECONDS]
        for name in gone:
            del self._of[name]
        gateway = self._of.setdefault(report.gateway, _Gateway(now, now))
        gateway.heard, gateway.draining, gateway.loads = now, report.draining, report.loads
        for subject, artifacts in report.traffic.items():
            for digest, counted in artifacts.items():
                last = gateway.counted.get((subject, digest), NOTHING)
                if counted == last:
                    continue
                gateway.counted[subject, digest] = counted
                totals = self._totals.setdefault(subject, {})
                totals[digest] = plus(totals.get(digest, NOTHING), minus(counted, last))

    def _alive(self, now: float) -> list[_Gateway]:
        return [found for found in self._of.values() if now - found.heard <= REPORT_SECONDS]

    def count(self, now: float) -> int:
        """Gateways that take requests."""
        return sum(not found.draining for found in self._alive(now))

    def demand(self, subjects: Iterable[str], now: float) -> Demand:
        """Over all gateways that live, of some subjects (`namespace/name`) together."""
        alive = self._alive(now)
        waiting = in_flight = 0
        idle = math.inf
        for subject in subjects:
            for gateway in alive:
                load = gateway.loads.get(subject)
                if load is None:
                    idle = min(idle, now - gateway.first)
                    continue
                waiting, in_flight = waiting + load.waiting, in_flight + load.in_flight
                idle = min(idle, load.idle_seconds + now - gateway.heard)
        idle = min([idle, *(now - gateway.first for gateway in alive)]) if math.isinf(idle) else idle
        # Gateways that this replica has not heard yet have their word to say, too.
        known = bool(alive) and now - self._begun >= REPORT_SECONDS
        return Demand(known, waiting, in_flight, 0.0 if math.isinf(idle) else idle)

    def seen(self, subject: str, digest: str) -> Traffic:
        """All that was counted of one artifact."""
        return self._totals.get(subject, {}).get(digest, NOTHING)

    def forget(self, subject: str) -> None:
        """The subject is gone."""
        self._totals.pop(subject, None)
        for gateway in self._of.values():
            gateway.counted = {key: value for key, value in gateway.counted.items() if key[0] != subject}
