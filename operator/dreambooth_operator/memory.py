"""What the operator remembers of an object beyond the caches. All of it may be lost: a restart begins without."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from dreambooth_api.adapters import AdapterState
from dreambooth_api.model import RolloutStatus
from dreambooth_api.result import Report
from dreambooth_api.routes import Traffic
from dreambooth_operator.traffic import NOTHING as NO_TRAFFIC
from dreambooth_operator.traffic import minus
from dreambooth_operator.views import ChildRef


@dataclass
class Memory:
    """Of one object, by its uid."""

    settled: set[tuple[ChildRef, str, Any]] = field(default_factory=set)
    # When which manifest of a child was applied last, on the monotonic clock.
    applied: dict[ChildRef, tuple[str, float]] = field(default_factory=dict)
    # The API server did not take a child the last time.
    refused: bool = False
    report: Report | None = None
    # Which pod, by its uid, gave that report, and when.
    answered: tuple[str, datetime] | None = None
    # When the trainer was asked last, or what it said was written, on the monotonic clock.
    asked: float = float("-inf")
    # Training pods seen so far, by uid, with their indexes; and how many restarts that makes.
    pods: dict[str, int] = field(default_factory=dict)
    restarts: int | None = None
    # Training pods seen running, by uid, with their begin: for the GPU time that they spent.
    alive: dict[str, datetime] = field(default_factory=dict)
    # What a pool's replica said last of an artifact, what it was asked, and when, on the monotonic clock.
    adapter: AdapterState | None = None
    adapter_of: tuple[Any, ...] = ()
    adapter_asked: float = float("-inf")
    # The step of a canary that is watched, and what gateways had counted of it at its begin.
    watched: tuple[str, str] | None = None
    counted: Traffic = field(default_factory=lambda: NO_TRAFFIC)
    met: bool = False

    def since_step(self, rollout: RolloutStatus | None, total: Traffic) -> Traffic:
        """What was counted since the canary's step began. Of a step that began before this memory did, all is: it
        is a canary's, and the more of it is judged the better."""
        met, self.met = self.met, True
        if rollout is None or rollout.since is None:
            self.watched = None
            return NO_TRAFFIC
        step = (rollout.digest, rollout.since)
        if self.watched != step:
            self.watched, self.counted = step, total if met else NO_TRAFFIC
        return minus(total, self.counted)

    def count_restarts(self, seen: dict[str, int], known: int) -> int:
        """Restarts in all: `known` when this memory began, and one for every pod (uid → index) that took the place of
        one that was seen before, also of one that is gone without a trace."""
        had = set(self.pods.values())
        replaced = sum(1 for uid, index in seen.items() if uid not in self.pods and index in had)
        self.pods.update(seen)
        self.restarts = (known if self.restarts is None else self.restarts) + replaced
        return self.restarts


class Memories:
    """By uid: an object that was made anew under its old name is another one."""

    def __init__(self) -> None:
        self._of: dict[str, Memory] = {}

    def of(self, uid: str) -> Memory:
        """The memory of an object; empty at first."""
        return self._of.setdefault(uid, Memory())

    def forget(self, uid: str) -> None:
        """Forget one."""
        self._of.pop(uid, None)
