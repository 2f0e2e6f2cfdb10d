"""Which batches are used: those that pay and keep every bit."""

from collections.abc import Callable, Sequence

import pytest
import torch

from dreambooth_server.batching import Sizes, measure


class Kernel:
    """A pretended U-Net: `differs` says which numbers of rows sum otherwise, `cost` what a call takes."""

    def __init__(self, cost: Callable[[int], float], differs: Callable[[int], bool] = lambda rows: False) -> None:
        self.cost, self.differs, self.now = cost, differs, 0.0

    def forward(self, rows: Sequence[int]) -> torch.Tensor:
        self.now += self.cost(len(rows))
        found = torch.tensor(list(rows), dtype=torch.float32).view(-1, 1)
        return found + 1e-3 if self.differs(len(rows)) else found

    def sizes(self, most: int = 8) -> Sizes:
        return measure(self.forward, most, clock=lambda: self.now)


def test_larger_batches_as_long_as_they_pay() -> None:
    assert Kernel(lambda rows: 10 + rows).sizes().rows == (1, 2, 3, 4, 6, 8)
    assert Kernel(lambda rows: rows).sizes().rows == (1, 2)
    assert Kernel(lambda rows: 10 + rows if rows <= 4 else 4 * rows).sizes().most == 4


def test_no_number_that_changes_a_bit() -> None:
    sizes = Kernel(lambda rows: 10 + rows, lambda rows: rows in (1, 3, 8)).sizes()
    assert sizes.rows == (2, 4, 6)
    assert [sizes.filled(rows) for rows in (1, 2, 3, 4, 5)] == [2, 2, 4, 4, 6]


def test_a_place_in_the_batch_must_not_matter_either() -> None:
    class Placed(Kernel):
        def forward(self, rows: Sequence[int]) -> torch.Tensor:
            found = super().forward(rows)
            return found + torch.arange(len(rows)).view(-1, 1) * 1e-3 if len(rows) > 4 else found

    assert Placed(lambda rows: 10 + rows).sizes().most == 4


def test_where_nothing_is_kept_nothing_is_batched_or_filled() -> None:
    sizes = Kernel(lambda rows: 10 + rows, lambda rows: rows != 2).sizes()
    assert sizes == Sizes()
    assert [sizes.filled(rows) for rows in (1, 2)] == [1, 2]


@pytest.mark.parametrize("fits", [2, 4])
def test_what_does_not_fit_into_the_memory_is_not_used(fits: int) -> None:
    def cost(rows: int) -> float:
        if rows > fits:
            raise torch.OutOfMemoryError
        return 10 + rows

    assert Kernel(cost).sizes().most == fits
