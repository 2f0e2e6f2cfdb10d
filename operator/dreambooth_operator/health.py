"""Whether the operator lives: not merely that this task answers, but that the work gets done."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

# A reconcile takes milliseconds; requests give up after ten seconds. Ten thousand jobs at once may wait for their turn
# for longer than this: as long as others get theirs, nothing is stuck.
STUCK = 180.0
TICK, MISSED_TICKS = 5.0, 60.0
# Every watch is opened anew after half a minute of silence, so the API server says something at least so often. An
# answer that is a refusal is one, too: restarting the operator would not mend an API server that is ill.
DEAF = 240.0


def _none() -> Iterable[tuple[str, float, bool]]:
    return ()


@dataclass
class Health:
    """Ages of what must happen again and again, seconds."""

    # Of the work that is due or under way, and of what is under way.
    oldest: Callable[[], float] = lambda: 0.0
    longest: Callable[[], float] = lambda: 0.0
    # Of every reflector: its kind, when it was last answered (on the monotonic clock), whether it has listed once.
    watches: Callable[[], Iterable[tuple[str, float, bool]]] = _none
    leading: Callable[[], bool] = lambda: True
    begun: float = field(default_factory=time.monotonic)
    ticked: float = field(default_factory=time.monotonic)
    reconciled: float | None = None

    def tick(self) -> None:
        """The event loop turns."""
        self.ticked = time.monotonic()

    def worked(self) -> None:
        """An object was reconciled."""
        self.reconciled = time.monotonic()

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Whether the caches are warm: a replica that stands by is ready to take over."""
        waiting = sorted({kind for kind, _, synced in self.watches() if not synced})
        return not waiting, {"leading": self.leading(), "notListedYet": waiting}

    def alive(self) -> tuple[bool, dict[str, Any]]:
        """Alive or not, and why."""
        now = time.monotonic()
        silent = {kind: now - heard for kind, heard, _ in sorted(self.watches(), key=lambda watch: -watch[1])}
        facts = {
            "leading": self.leading(),
            "loopTickAge": round(now - self.ticked, 1),
            "oldestWork": round(self.oldest(), 1),
            "lastReconcileAge": None if self.reconciled is None else round(now - self.reconciled, 1),
            "lastHeardAge": {kind: round(age, 1) for kind, age in silent.items()},
            "uptime": round(now - self.begun, 1),
        }
        deaf = any(age > DEAF for age in silent.values())
        idle = now - (self.begun if self.reconciled is None else self.reconciled)
        stuck = self.longest() > STUCK or min(self.oldest(), idle) > STUCK
        return now - self.ticked < MISSED_TICKS and not stuck and not deaf, facts
