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
    """Coalesces: what is added while it waits is done once; what is added while it runs, is done once more after."""

    def __init__(self) -> None:
        # An ordered set with the time at which each key became due.
        self._due: dict[K, float] = {}
        self._running: dict[K, float] = {}
        self._again: set[K] = set()
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._failures: dict[K, int] = {}
        self._wake = asyncio.Event()

    def add(self, key: K, after: float = 0.0) -> None:
        """Have `key` reconciled, now or `after` seconds; of several delayed calls the earliest counts."""
        if after > 0:
            self._delay(key, after)
        elif key in self._running:
            self._again.add(key)
        else:
            self._cancel(key)
            self._due.setdefault(key, time.monotonic())
            self._wake.set()

    def forget(self, key: K) -> None:
        """Drop timers and failures of an object that is gone."""
        self._cancel(key)
        self._failures.pop(key, None)

    def oldest(self) -> float:
        """Seconds that the longest waiting or running key has been at it; 0 when there is none."""
        begun = min([*self._due.values(), *self._running.values()], default=None)
        return 0.0 if begun is None else time.monotonic() - begun

    def __len__(self) -> int:
        return len(self._due)

    async def work(self, reconcile: Callable[[K], Awaitable[None]]) -> None:
        """Take keys and reconcile them until cancelled; what fails is tried again, ever later up to a minute."""
        while True:
            key = await self._take()
            try:
                await reconcile(key)
                self._failures.pop(key, None)
            # The edge: whatever went wrong with one object must not stop the others.
            except Exception:
                failures = self._failures[key] = self._failures.get(key, 0) + 1
                delay = min(FIRST_BACKOFF * 2 ** min(failures - 1, 10), LAST_BACKOFF)
                logger.exception("%s: reconciling failed, again in %.1f s", key, delay)
                self._delay(key, delay)
            finally:
                self._running.pop(key, None)
                if key in self._again:
                    self._again.discard(key)
                    self.add(key)

    async def _take(self) -> K:
        while not self._due:
            self._wake.clear()
            await self._wake.wait()
        key = next(iter(self._due))
        del self._due[key]
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
        self.add(key)

    def _cancel(self, key: K) -> None:
        if timer := self._timers.pop(key, None):
            timer.cancel()
