"""Where adapters are kept: in the device's slots, in the host's memory, on disk. Those used last stay."""

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Tier(StrEnum):
    """Where an adapter was when it was asked for."""

    DEVICE = "device"
    MEMORY = "memory"
    DISK = "disk"
    STORE = "store"


class NoRoom(Exception):
    """Every slot is in use by a picture that is being drawn."""


@dataclass
class Shelf:
    """Adapters by key, in two bounded tiers over whatever `read` reads from.

    `keep` may be called from any thread, the rest from the one that draws.
    """

    slots: int
    """On the device, numbered from 1."""
    in_memory: int
    put: Callable[[int, Any], None]
    """Puts an adapter into a slot."""
    _memory: OrderedDict[str, Any] = field(default_factory=OrderedDict)
    _placed: OrderedDict[str, int] = field(default_factory=OrderedDict)
    _used: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def keep(self, key: str, read: Callable[[], Any]) -> None:
        """Have it in memory at least. Raises what `read` raises."""
        with self._lock:
            if key in self._placed or key in self._memory:
                return
        self._remember(key, read())

    def has(self, key: str) -> bool:
        """Whether it is at hand without reading."""
        return key in self._placed or key in self._memory

    def free(self, key: str) -> bool:
        """Whether `take` would find a slot."""
        return key in self._placed or len(self._placed) < self.slots or any(not self._used[k] for k in self._placed)

    def take(self, key: str, read: Callable[[], Any]) -> tuple[int, Tier]:
        """Its slot, and where it was; it stays there until `give`. Raises NoRoom, and what `read` raises."""
        tier = Tier.DEVICE
        if key not in self._placed:
            tier = Tier.MEMORY if key in self._memory else Tier.DISK
            self._place(key, read)
        with self._lock:
            self._placed.move_to_end(key)
        self._used[key] += 1
        return self._placed[key], tier

    def give(self, key: str) -> None:
        """Undo one `take`: the slot may be had by others."""
        self._used[key] -= 1

    def count(self, tier: Tier) -> int:
        """Adapters on the device, or in memory."""
        return len(self._placed if tier is Tier.DEVICE else self._memory)

    def _place(self, key: str, read: Callable[[], Any]) -> None:
        if not self.free(key):
            raise NoRoom
        with self._lock:
            adapter = self._memory.get(key)
        if adapter is None:
            adapter = read()
            self._remember(key, adapter)
        with self._lock:
            self._memory.move_to_end(key) if key in self._memory else None
            slot = len(self._placed) + 1
            if len(self._placed) >= self.slots:
                slot = self._placed.pop(next(k for k in self._placed if not self._used[k]))
        self.put(slot, adapter)
        with self._lock:
            self._placed[key] = slot

    def _remember(self, key: str, adapter: Any) -> None:
        with self._lock:
            self._memory[key] = adapter
            self._memory.move_to_end(key)
            while len(self._memory) > self.in_memory:
                self._memory.popitem(last=False)
