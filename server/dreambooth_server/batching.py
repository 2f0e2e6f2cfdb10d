"""How many rows go through the U-Net at once: as many as pay, of those numbers that change no picture.

Kernels may sum in another order for another number of rows. So the numbers that may be used are measured before the
server is ready: those whose rows are bit-equal to the same rows computed by themselves.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

ALONE = 2
"""Rows of one guided picture."""
_PAYS = 0.95


@dataclass(frozen=True)
class Sizes:
    """Numbers of rows that may be used, ascending; batches between two of them are filled up."""

    rows: tuple[int, ...] = (ALONE,)

    @property
    def most(self) -> int:
        """Rows of the largest batch."""
        return self.rows[-1]

    def filled(self, rows: int) -> int:
        """The number of rows that a batch of `rows` is computed with."""
        if self.most <= ALONE:
            return rows
        return next((size for size in self.rows if size >= rows), rows)


def measure(
    forward: Callable[[Sequence[int]], torch.Tensor],
    most: int,
    only: Sequence[int] = (),
    clock: Callable[[], float] = time.perf_counter,
) -> Sizes:
    """The numbers of rows up to `most` that keep every bit, as long as more rows make each cheaper.

    `forward` runs the U-Net on the given rows of a fixed supply; `only` limits the numbers that are tried.
    """
    supply = list(range(most))
    alone = torch.cat([forward(supply[at : at + ALONE]) for at in range(0, most - 1, ALONE)])
    kept: list[int] = []
    cost: dict[int, float] = {}
    for count in only or range(1, most + 1):
        if not torch.equal(forward(supply[:count])[: len(alone)], alone[:count]):
            continue
        # The end of the supply first: a row's place must not matter either.
        turned = supply[::-1][:count]
        if not torch.equal(forward(turned), torch.stack([alone[row] for row in turned])):
            continue
        kept, cost[count] = [*kept, count], min(_seconds(forward, supply[:count], clock) for _ in range(2)) / count
    best = ALONE
    for count in kept:
        if count > ALONE and cost[count] < _PAYS * cost.get(best, float("inf")):
            best = count
    return Sizes(tuple(sorted({*(count for count in kept if count <= best), ALONE})))


def _seconds(
    forward: Callable[[Sequence[int]], torch.Tensor], rows: Sequence[int], clock: Callable[[], float]
) -> float:
    begun = clock()
    forward(rows)
    return clock() - begun
