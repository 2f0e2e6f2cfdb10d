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
TRIED = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
"""Batches between two of them are filled up."""
COMPILED = (2, 4, 8, 16, 32, 64, 128)
"""The same where each has to be compiled: that takes minutes, and a batch is at most twice what it needs to be."""
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
    only: Sequence[int] = TRIED,
    clock: Callable[[], float] = time.perf_counter,
) -> Sizes:
    """The numbers of rows up to `most` that keep every bit, to the one where a row is cheapest.

    `forward` runs the U-Net on the given rows of a fixed supply; `only` are the numbers that are tried.
    """
    supply = list(range(most + most % ALONE))
    alone = torch.cat([forward(supply[at : at + ALONE]) for at in range(0, len(supply), ALONE)])
    cost: dict[int, float] = {}
    for count in (count for count in only if count <= most):
        # The last ones turned, too: a row's place must not matter either.
        chosen = supply[:count], supply[::-1][:count]
        begun = clock()
        try:
            same = all(torch.equal(forward(rows), alone[rows]) for rows in chosen)
        except torch.OutOfMemoryError:
            break
        if same:
            cost[count] = (clock() - begun) / count
    best = min((count for count in cost if count > ALONE), key=lambda count: cost[count], default=ALONE)
    if best > ALONE and cost[best] > _PAYS * cost.get(ALONE, float("inf")):
        best = ALONE
    return Sizes(tuple(sorted({*(count for count in cost if count <= best), ALONE})))
