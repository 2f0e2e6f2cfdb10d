"""Tiers of adapters: what stays, what goes, and what is never taken from a picture that is being drawn."""

from collections.abc import Callable
from typing import Any

import pytest

from dreambooth_server.shelf import NoRoom, Shelf, Tier


class Disk:
    def __init__(self) -> None:
        self.reads: list[str] = []
        self.device: dict[int, str] = {}

    def of(self, key: str) -> Callable[[], Any]:
        def read() -> str:
            self.reads.append(key)
            return key

        return read


def take(shelf: Shelf, disk: Disk, key: str) -> Tier:
    slot, tier = shelf.take(key, disk.of(key))
    assert disk.device[slot] == key
    shelf.give(key)
    return tier


def test_those_used_last_stay_in_each_tier() -> None:
    disk = Disk()
    shelf = Shelf(slots=2, in_memory=3, put=disk.device.__setitem__)
    assert [take(shelf, disk, key) for key in "abac"] == [Tier.DISK, Tier.DISK, Tier.DEVICE, Tier.DISK]
    # c took b's slot, not a's, which was drawn since; b is in memory still, and d lets go of the oldest there.
    assert take(shelf, disk, "a") is Tier.DEVICE
    assert take(shelf, disk, "b") is Tier.MEMORY
    assert [take(shelf, disk, key) for key in "dea"] == [Tier.DISK, Tier.DISK, Tier.DISK]
    assert "".join(disk.reads) == "abcdea"
    assert (shelf.count(Tier.DEVICE), shelf.count(Tier.MEMORY)) == (2, 3)


def test_keeping_reads_once() -> None:
    disk = Disk()
    shelf = Shelf(1, 2, disk.device.__setitem__)
    for _ in range(2):
        shelf.keep("a", disk.of("a"))
    assert shelf.has("a")
    assert take(shelf, disk, "a") is Tier.MEMORY
    shelf.keep("a", disk.of("a"))
    assert disk.reads == ["a"]
    assert not shelf.has("b")


def test_a_slot_in_use_is_nobody_elses() -> None:
    disk = Disk()
    shelf = Shelf(1, 2, disk.device.__setitem__)
    shelf.take("a", disk.of("a"))
    assert shelf.free("a")
    assert not shelf.free("b")
    with pytest.raises(NoRoom):
        shelf.take("b", disk.of("b"))
    shelf.give("a")
    assert take(shelf, disk, "b") is Tier.DISK


def test_a_slot_survives_an_adapter_that_could_not_be_put() -> None:
    disk, broken = Disk(), True

    def put(slot: int, adapter: str) -> None:
        if broken:
            raise MemoryError
        disk.device[slot] = adapter

    shelf = Shelf(2, 2, put)
    for key in "abc":
        with pytest.raises(MemoryError):
            shelf.take(key, disk.of(key))
    broken = False
    slots = {shelf.take(key, disk.of(key))[0] for key in "ab"}
    assert slots == {1, 2}
