"""Whether the operator lives: not merely that this task answers, but that the work gets done."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

# A reconcile takes milliseconds; requests give up after ten seconds.
STUCK = 180.0
TICK, MISSED_TICKS = 5.0, 60.0


@dataclass
class Health:
    """Ages of what must happen again and again, seconds."""

    oldest: Callable[[], float]
    begun: float = field(default_factory=time.monotonic)
    ticked: float = field(default_factory=time.monotonic)
    event: float | None = None

    def tick(self) -> None:
        """The event loop turns."""
        self.ticked = time.monotonic()

    def heard(self) -> None:
        """A watch brought an event."""
        self.event = time.monotonic()

    def report(self) -> tuple[bool, dict[str, Any]]:
        """Alive or not, and why. Silence of the watches is none: in a quiet cluster nothing happens, and kopf ends a
        watch without bookmarks after 70 s by itself."""
        now = time.monotonic()
        facts = {
            "loopTickAge": round(now - self.ticked, 1),
            "oldestWork": round(self.oldest(), 1),
            "lastEventAge": None if self.event is None else round(now - self.event, 1),
            "uptime": round(now - self.begun, 1),
        }
        return now - self.ticked < MISSED_TICKS and self.oldest() < STUCK, facts
