"""What asks a U-Net: by a program of this machine where one was made for the shape, else layer by layer.

Programs are made before the server is ready and never later: a shape is computed in one way from the first picture to
the last, and no picture waits for a compiler.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

# torch stops compiling a function after 8 shapes, to protect from shapes that never end; these do.
_SHAPES = 64


def predict(
    unet: Any, latents: torch.Tensor, times: torch.Tensor, words: torch.Tensor, added: dict[str, torch.Tensor] | None
) -> torch.Tensor:
    """The U-Net's prediction, of the latents' shape: (B, C, h, w), all in its precision; `times`: (B,)."""
    return unet(latents, times, encoder_hidden_states=words, added_cond_kwargs=added, return_dict=False)[0]


class Programs:
    """One U-Net's; called as `predict` is, without the U-Net."""

    def __init__(self, unet: Any) -> None:
        def ask(*inputs: Any) -> torch.Tensor:
            return predict(unet, *inputs)

        self._plain = ask
        # Whole, and of fixed shapes: a part that cannot be compiled is an error now, not a surprise later.
        self._compiled = torch.compile(ask, dynamic=False, fullgraph=True)
        self._made: set[torch.Size] = set()
        self._making = False

    @contextmanager
    def making(self) -> Iterator[None]:
        """Within, a call makes the program of its shape, or finds it where a process before left it."""
        self._making = True
        try:
            with torch._dynamo.config.patch(recompile_limit=_SHAPES):
                yield
        finally:
            self._making = False

    def __call__(
        self, latents: torch.Tensor, times: torch.Tensor, words: torch.Tensor, added: dict[str, torch.Tensor] | None
    ) -> torch.Tensor:
        if self._making:
            found = self._by_program(latents, times, words, added)
            self._made.add(latents.shape)
            return found
        if latents.shape not in self._made:
            return self._plain(latents, times, words, added)
        with torch.compiler.set_stance("fail_on_recompile"):
            return self._by_program(latents, times, words, added)

    def _by_program(
        self, latents: torch.Tensor, times: torch.Tensor, words: torch.Tensor, added: dict[str, torch.Tensor] | None
    ) -> torch.Tensor:
        # Schedulers count steps in whole numbers or in float32: to a program these would be different inputs.
        return self._compiled(latents.contiguous(), times.float(), words.contiguous(), added)
