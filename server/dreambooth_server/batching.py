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
"""A row of a larger batch must cost less than this share of one of a single picture."""


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
    """The numbers of rows up to `most` that keep every bit, to the one where a row is cheapest.

    `forward` runs the U-Net on the given rows of a fixed supply; `only` limits the numbers that are tried.
    """
    supply = list(range(most))
    # `most` is even.
    alone = torch.cat([forward(supply[at : at + ALONE]) for at in range(0, most, ALONE)])
    kept: list[int] = []
    cost: dict[int, float] = {}
    for count in only or range(1, most + 1):
        try:
            same = _same(forward, supply, count, alone)
        except torch.OutOfMemoryError:
            break
        if same:
            kept.append(count)
            cost[count] = min(_seconds(forward, supply[:count], clock) for _ in range(2)) / count
    best = min((count for count in kept if count > ALONE), key=lambda count: cost[count], default=ALONE)
    if best > ALONE and cost[best] > _PAYS * cost.get(ALONE, float("inf")):
        best = ALONE
    return Sizes(tuple(sorted({*(count for count in kept if count <= best), ALONE})))


def _same(forward: Callable[[Sequence[int]], torch.Tensor], supply: list[int], count: int, alone: torch.Tensor) -> bool:
    """Whether `count` rows are, bit by bit, what they are by themselves: the first ones, and the last ones turned."""
    turned = supply[::-1][:count]
    return torch.equal(forward(supply[:count]), alone[:count]) and torch.equal(forward(turned), alone[turned])


def _seconds(
    forward: Callable[[Sequence[int]], torch.Tensor], rows: Sequence[int], clock: Callable[[], float]
) -> float:
    begun = clock()
    forward(rows)
    return clock() - begun
