"""What batches of a replica may be, by U-Net and size: measured when it is first needed, or when it is compiled."""

import logging
from collections.abc import Sequence

import torch

from dreambooth_api.reasons import Reason
from dreambooth_server.batching import ALONE, COMPILED, TRIED, Sizes, measure
from dreambooth_server.faults import LoadFault
from dreambooth_server.loading import first_line
from dreambooth_server.rehearsal import Rehearsal
from dreambooth_server.sampler import Parts
from dreambooth_server.slots import Slots

log = logging.getLogger(__name__)
_RARE = 4


class Batches:
    """Used by one thread."""

    def __init__(self, base: Parts, slots: Slots, batch: int, resolution: int) -> None:
        """`batch`: guided pictures that may share a forward pass; `resolution`: the usual side, pixels."""
        self._base, self._slots, self._batch = base, slots, batch
        self._usual = (resolution, resolution)
        self._known: dict[object, Sizes] = {}

    def usual(self) -> Sizes:
        """Of the base at its own size."""
        return self.sizes(self._base, self._usual)

    def sizes(self, parts: Parts, size: tuple[int, int]) -> Sizes:
        """Of pictures of `size` (width and height, pixels) that are drawn with `parts`."""
        # Layer by layer, what batches keep does not depend on weights: the base's measurement holds for all.
        parts = parts if parts.programs else self._base
        if (parts.programs, size) not in self._known:
            self._measure(parts, size, TRIED)
        return self._known[parts.programs, size]

    def compile(self, each: Sequence[Parts]) -> None:
        """Make the programs of these for the usual size, and measure which of them keep every bit and pay.

        Raises LoadFault.
        """
        counts = [count for count in COMPILED if count <= self._most(self._usual)]
        wanted = [(parts, count) for parts in each for count in counts]
        try:
            for place, (parts, count) in enumerate(wanted, 1):
                log.info("compiling %d of %d: %d rows of %dx%d", place, len(wanted), count, *self._usual)
                assert parts.programs is not None
                with parts.programs.making():
                    Rehearsal(parts, self._usual, self._slots, count).forward(range(count))
        except torch.OutOfMemoryError as e:
            message = "compile: a batch does not fit into the device's memory: set compile to false or use a larger one"
            raise LoadFault(Reason.GPU_OUT_OF_MEMORY, message) from e
        except (RuntimeError, OSError) as e:
            message = f"compile: the U-Net cannot be compiled here, set compile to false: {first_line(e)}"
            raise LoadFault(Reason.INVALID_SPEC, message) from e
        for parts in each:
            self._measure(parts, self._usual, COMPILED)

    def _most(self, size: tuple[int, int]) -> int:
        """Rows. Pictures wait while other sizes than the usual are measured, and those are seldom asked for."""
        return ALONE * (self._batch if size == self._usual else min(self._batch, _RARE))

    def _measure(self, parts: Parts, size: tuple[int, int], only: Sequence[int]) -> None:
        most = self._most(size)
        rehearsal = Rehearsal(parts, size, self._slots, most)
        with self._slots.disturbed():
            found = measure(rehearsal.forward, most, only) if most > ALONE else Sizes()
        self._known[parts.programs, size] = found
        log.info("batches of %dx%d: %s rows", *size, found.rows)
