"""How many threads compute a step on the CPU: a rule of the model's size alone, so that a resumed run sums alike."""

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

# Below this many parameters an operation takes microseconds, less than waking a second thread: docs/performance.md.
SMALL = 20_000_000


def thread_count(parameters: int, available: int) -> int:
    """Threads for a model of so many parameters where `available` may be used."""
    return 1 if parameters < SMALL else available


@contextlib.contextmanager
def for_training(model: nn.Module, device: str) -> Iterator[None]:
    """While it lasts, operations use as many threads as suit `model`; a GPU's process keeps its own."""
    before = torch.get_num_threads()
    if device == "cpu":
        torch.set_num_threads(thread_count(sum(p.numel() for p in model.parameters()), before))
    try:
        yield
    finally:
        torch.set_num_threads(before)
