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
    _unused: list[int] = field(default_factory=list)
    _memory: OrderedDict[str, Any] = field(default_factory=OrderedDict)
    _placed: OrderedDict[str, int] = field(default_factory=OrderedDict)
    _used: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._unused = list(range(self.slots, 0, -1))

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
        return key in self._placed or bool(self._unused) or bool(self._idle())

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
        slot = self._vacate()
        try:
            self.put(slot, adapter)
        except BaseException:
            self._unused.append(slot)
            raise
        with self._lock:
            self._placed[key] = slot

    def _vacate(self) -> int:
        """A slot that nobody needs: an unused one, else that of whoever was drawn longest ago."""
        with self._lock:
            return self._unused.pop() if self._unused else self._placed.pop(self._idle()[0])

    def _idle(self) -> list[str]:
        return [key for key in self._placed if not self._used[key]]

    def _remember(self, key: str, adapter: Any) -> None:
        with self._lock:
            self._memory[key] = adapter
            self._memory.move_to_end(key)
            while len(self._memory) > self.in_memory:
                self._memory.popitem(last=False)
