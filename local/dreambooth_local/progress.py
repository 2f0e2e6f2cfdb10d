"""Runs the steps of a long command side by side, and says which are under way and for how long."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

HEARTBEAT_SECONDS = 20.0


@dataclass(frozen=True)
class Step:
    """`action` runs once all of `after` are done. A name in `after` that is not among the steps counts as done.

    An action returns a few words on what it did ("cached", "7 programs") or None.
    """

    name: str
    action: Callable[[], str | None]
    after: Sequence[str] = ()


class StepFailed(Exception):
    """A step raised; the steps that waited for it were not started."""


def ready(steps: Sequence[Step], started: Collection[str], done: Collection[str]) -> list[Step]:
    """The steps that may start now: not started, everything before them done."""
    names = {step.name for step in steps}
    return [s for s in steps if s.name not in started and all(b in done or b not in names for b in s.after)]


def heartbeat(elapsed: float, running: dict[str, float], now: float) -> str:
    """`… 40 s: compile kubernetes (38 s), base image (12 s)`"""
    return f"… {elapsed:.0f} s: " + ", ".join(
        f"{name} ({now - begun:.0f} s)" for name, begun in sorted(running.items())
    )


class Progress:
    """Prints one line at each step's end and a heartbeat between; keeps the seconds of each step."""

    def __init__(self, out: TextIO = sys.stderr, every: float = HEARTBEAT_SECONDS) -> None:
        self.out, self.every = out, every
        self.begun = time.monotonic()
        self.seconds: dict[str, float] = {}
        self.running: dict[str, float] = {}
        self._lock = threading.Lock()

    def say(self, text: str) -> None:
        with self._lock:
            print(text, file=self.out, flush=True)

    def run(self, steps: Sequence[Step]) -> None:
        """Runs all steps, as many at a time as their order allows. Raises StepFailed after those under way ended."""
        started: set[str] = set()
        failure: StepFailed | None = None
        with ThreadPoolExecutor(max_workers=max(1, len(steps))) as pool:
            futures: dict[Future[None], Step] = {}
            while True:
                if failure is None:
                    for step in ready(steps, started, self.seconds):
                        started.add(step.name)
                        futures[pool.submit(self._one, step)] = step
                if not futures:
                    break
                ended, _ = wait(futures, timeout=self.every, return_when=FIRST_COMPLETED)
                if not ended and self.running:
                    self.say(heartbeat(time.monotonic() - self.begun, dict(self.running), time.monotonic()))
                for future in ended:
                    failure = self._outcome(futures.pop(future), future) or failure
        if failure:
            raise failure

    def _outcome(self, step: Step, future: Future[None]) -> StepFailed | None:
        error = future.exception()
        if error is None:
            return None
        self.say(f"✗ {step.name}: {error}")
        failed = StepFailed(f"{step.name}: {error}")
        failed.__cause__ = error
        return failed

    def _one(self, step: Step) -> None:
        begun = time.monotonic()
        self.running[step.name] = begun
        try:
            note = step.action()
        finally:
            del self.running[step.name]
        took = time.monotonic() - begun
        self.seconds[step.name] = round(took, 1)
        self.say(f"✓ {step.name}: {took:.1f} s" + (f" ({note})" if note else ""))

    def breakdown(self) -> dict[str, float]:
        """Seconds per step in the order of their ends, and `total` by the clock (steps overlap)."""
        return {**self.seconds, "total": round(time.monotonic() - self.begun, 1)}

    def write(self, path: Path, what: str) -> None:
        """Adds this run's breakdown to the JSON file under the key `what`."""
        known = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**known, what: self.breakdown()}, indent=2) + "\n")
