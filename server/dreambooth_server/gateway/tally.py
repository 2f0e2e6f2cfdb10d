"""What a gateway counts of each subject: for the operator, which scales and judges canaries by it."""

import bisect
import time
from collections import Counter
from collections.abc import Container, Iterable
from dataclasses import dataclass, field

from dreambooth_api.routes import BOUNDS, Load, Traffic
from dreambooth_server.gateway.table import Subject


@dataclass
class _Traffic:
    requests: int = 0
    errors: int = 0
    durations: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))


class Tally:
    """Requests now, by subject and by backend; and answers since the start, by subject and artifact."""

    def __init__(self) -> None:
        self._born = time.monotonic()
        self._last: dict[Subject, float] = {}
        self._traffic: dict[Subject, dict[str, _Traffic]] = {}
        self.working: Counter[Subject] = Counter()
        self.waiting: Counter[Subject] = Counter()
        self.backends: Counter[str] = Counter()
        """Requests that are worked on, or wait for this backend."""

    def work(self, subject: Subject, backend: str, change: int) -> None:
        """`change` more requests are worked on."""
        self._change(self.working, subject, backend, change)

    def wait(self, subject: Subject, backend: str, change: int) -> None:
        """`change` more requests wait."""
        self._change(self.waiting, subject, backend, change)

    def _change(self, counter: Counter[Subject], subject: Subject, backend: str, change: int) -> None:
        counter[subject] += change
        self.backends[backend] += change
        self._last[subject] = time.monotonic()

    def answered(self, subject: Subject, digest: str, seconds: float, error: bool) -> None:
        """A replica took `seconds` for an answer, or for failing to give one."""
        seen = self._traffic.setdefault(subject, {}).setdefault(digest, _Traffic())
        seen.requests += 1
        seen.errors += error
        seen.durations[bisect.bisect_left(BOUNDS, seconds)] += 1

    def load(self, subject: Subject) -> Load:
        """Of this moment."""
        working, waiting = self.working[subject], self.waiting[subject]
        idle = 0.0 if working or waiting else time.monotonic() - self._last.get(subject, self._born)
        return Load(in_flight=working, waiting=waiting, idle_seconds=idle)

    def loads(self, subjects: Iterable[Subject]) -> dict[str, Load]:
        """By `namespace/name`."""
        return {"/".join(subject): self.load(subject) for subject in subjects}

    def traffic(self) -> dict[str, dict[str, Traffic]]:
        """By `namespace/name`, then by digest."""
        return {
            "/".join(subject): {
                digest: Traffic(requests=seen.requests, errors=seen.errors, durations=list(seen.durations))
                for digest, seen in digests.items()
            }
            for subject, digests in self._traffic.items()
        }

    def keep(self, subjects: Container[Subject]) -> None:
        """Forget all others. Artifacts of these stay counted: what the operator is told must never shrink."""
        self._last = {subject: when for subject, when in self._last.items() if subject in subjects}
        self._traffic = {subject: seen for subject, seen in self._traffic.items() if subject in subjects}
        for counter in (self.working, self.waiting):
            for subject in [subject for subject, count in counter.items() if not count]:
                del counter[subject]
