"""Where the time between a process's beginning and its first picture goes."""

import os
import time
from pathlib import Path

from dreambooth_server.metrics import Metrics


class Start:
    """Stages of one start, each of which ends where the next begins; the first began with the process."""

    def __init__(self, metrics: Metrics) -> None:
        age = process_age()
        metrics.process_start.set(time.time() - age)
        self._metrics, self._since = metrics, time.monotonic() - age
        self._passed: dict[str, float] = {}

    def passed(self, stage: str) -> None:
        """`stage` ends now."""
        now = time.monotonic()
        self._passed[stage], self._since = now - self._since, now
        self._metrics.start_seconds.labels(stage).set(self._passed[stage])

    @property
    def seconds(self) -> float:
        """Of all stages that have passed."""
        return sum(self._passed.values())

    def __str__(self) -> str:
        return ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in self._passed.items())


def process_age() -> float:
    """Seconds since this process began, to the hundredth; 0 where there is no /proc."""
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    # Field 22 of proc(5): clock ticks after boot.
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
