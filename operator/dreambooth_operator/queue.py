"""A queue of objects to reconcile: each at most once in it, never two reconciles of one object at the same time."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

FIRST_BACKOFF, LAST_BACKOFF = 0.5, 60.0

logger = logging.getLogger(__name__)


class WorkQueue(Generic[K]):
    """Coalesces: what is added while it waits is done once; what is added while it runs, is done once more after.

    What happened goes before what a timer only wants looked at again: however many objects are polled, an event waits
    for no more than the reconciles that run.
    """

    def __init__(self, waited: Callable[[K, float], None] = lambda key, seconds: None) -> None:
        """`waited` is told how long a key that something happened to, waited for its turn, seconds."""
        # Ordered sets with the time at which each key became due: events, and timers.
        self._due: dict[K, float] = {}
        self._idle: dict[K, float] = {}
        self._running: dict[K, float] = {}
        self._again: set[K] = set()
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._failures: dict[K, int] = {}
        self._wake = asyncio.Event()
        self._waited = waited

    def add(self, key: K, after: float = 0.0) -> None:
        """Have `key` reconciled, now or `after` seconds; of several delayed calls the earliest counts."""
        if after > 0:
            self._delay(key, after)
        elif key in self._running:
            self._again.add(key)
        else:
            self._cancel(key)
            self._idle.pop(key, None)
            self._due.setdefault(key, time.monotonic())
            self._wake.set()

    def forget(self, key: K) -> None:
        """Drop timers and failures of an object that is gone."""
        self._cancel(key)
        self._idle.pop(key, None)
        self._failures.pop(key, None)

    def oldest(self) -> float:
        """Seconds that the key that is running or has been due for the longest has been at it; 0 when there is none."""
        # Insertion order is the order of time: only the first of each counts.
        begun = [next(iter(found.values())) for found in (self._due, self._running) if found]
        return time.monotonic() - min(begun) if begun else 0.0

    def longest(self) -> float:
        """Seconds that the reconcile that has been running for the longest has been at it; 0 when none runs."""
        return time.monotonic() - min(self._running.values()) if self._running else 0.0

    def __len__(self) -> int:
        return len(self._due)

    async def work(self, reconcile: Callable[[K], Awaitable[None]]) -> None:
        """Take keys and reconcile them until cancelled; what fails is tried again, ever later up to a minute, and not
        before the `retry_after` seconds that its exception may carry: one without is a bug, and is logged as such."""
        while True:
            key = await self._take()
            try:
                await reconcile(key)
                self._failures.pop(key, None)
            # The edge: whatever went wrong with one object must not stop the others.
            except Exception as e:
                self._failed(key, e)
            finally:
                self._running.pop(key, None)
                if key in self._again:
                    self._again.discard(key)
                    self.add(key)

    def _failed(self, key: K, fault: Exception) -> None:
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        pause = getattr(fault, "retry_after", None)
        delay = max(pause or 0.0, min(FIRST_BACKOFF * 2 ** min(failures - 1, 10), LAST_BACKOFF))
        # What says when to come again was expected: where it was raised tells nothing.
        level, trace = (logging.ERROR, fault) if pause is None else (logging.WARNING, None)
        logger.log(level, "%s: reconciling failed: %s; again in %.1f s", key, fault, delay, exc_info=trace)
        self._delay(key, delay)

    async def _take(self) -> K:
        while not self._due and not self._idle:
            self._wake.clear()
            await self._wake.wait()
        lane = self._due or self._idle
        key = next(iter(lane))
        due = lane.pop(key)
        if lane is self._due:
            self._waited(key, time.monotonic() - due)
        self._running[key] = time.monotonic()
        return key

    def _delay(self, key: K, after: float) -> None:
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        if timer is not None and timer.when() <= loop.time() + after:
            return
        self._cancel(key)
        self._timers[key] = loop.call_later(after, self._fire, key)

    def _fire(self, key: K) -> None:
        self._timers.pop(key, None)
        if key in self._running:
            self._again.add(key)
        elif key not in self._due:
            self._idle.setdefault(key, time.monotonic())
            self._wake.set()

    def _cancel(self, key: K) -> None:
        if timer := self._timers.pop(key, None):
            timer.cancel()

    def close(self) -> None:
        """Drop every timer: nobody will work on this queue any more."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
