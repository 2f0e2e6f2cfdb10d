"""What follows from pictures and words alone is computed once, and is what it was whoever computed it."""

from pathlib import Path

import pytest
import torch

from dreambooth_trainer.cache import FILE, cached
from dreambooth_trainer.distributed import World
from dreambooth_trainer.manifests import CorruptFolder
from dreambooth_trainer.store import FolderStore


def never():
    raise AssertionError("nothing is to be computed")


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "cache")


def test_computed_once_and_then_read(store: FolderStore) -> None:
    values = {"mean": torch.randn(2, 3, 4).transpose(0, 1), "half": torch.ones(2, dtype=torch.bfloat16)}
    for compute in (lambda: values, never):
        found = cached(store, World(), compute)
        assert found.keys() == values.keys()
        assert all(torch.equal(found[name], values[name]) for name in values)
        assert found["half"].dtype == torch.bfloat16


@pytest.mark.parametrize("harm", ["spoilt", "gone", "no manifest", "half a manifest", "not tensors"])
def test_what_is_spoilt_is_computed_anew(store: FolderStore, harm: str) -> None:
    cached(store, World(), lambda: {"a": torch.zeros(3)})
    match harm:
        case "spoilt":
            store.write(FILE, store.read(FILE)[:-1] + b"\xff")
        case "gone":
            store.delete([FILE])
        case "no manifest":
            store.delete(["MANIFEST.json"])
        case "half a manifest":
            store.write("MANIFEST.json", b"{")
        case "not tensors":
            store.write(FILE, b"text")
    assert torch.equal(cached(store, World(), lambda: {"a": torch.ones(3)})["a"], torch.ones(3))
    assert torch.equal(cached(store, World(), never)["a"], torch.ones(3))


def test_other_ranks_only_read(store: FolderStore) -> None:
    other = World(rank=1)
    with pytest.raises(CorruptFolder):
        cached(store, other, never)
    cached(store, World(), lambda: {"a": torch.ones(3)})
    assert torch.equal(cached(store, other, never)["a"], torch.ones(3))
