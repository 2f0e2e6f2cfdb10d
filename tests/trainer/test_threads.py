import pytest
import torch
from torch import nn

from dreambooth_trainer import threads


@pytest.mark.parametrize(("parameters", "count"), [(2_000_000, 1), (860_000_000, 8)])
def test_small_models_use_one_thread(parameters: int, count: int) -> None:
    assert threads.thread_count(parameters, 8) == count


def test_the_threads_of_before_come_back() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with threads.for_training(nn.Linear(2, 2), "cpu"):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
        with threads.for_training(nn.Linear(2, 2), "cuda"):
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
