"""A supply of rows for the U-Net, to find out what batches do to them."""

from collections.abc import Sequence
from typing import Any

import torch

from dreambooth_server.sampler import Parts
from dreambooth_server.slots import Slots


class Rehearsal:
    """Random latents, words and steps of one size, drawn with the adapters that are in the slots."""

    def __init__(self, parts: Parts, size: tuple[int, int], slots: Slots, count: int) -> None:
        """`size`: width and height, pixels; `count` rows."""
        generator = torch.Generator("cpu").manual_seed(0)
        unet, (width, height) = parts.unet, size
        self._parts, self._slots = parts, slots

        def random(*shape: int) -> torch.Tensor:
            return torch.randn((count, *shape), generator=generator).to(parts.device, unet.dtype)

        self._latents = random(unet.config.in_channels, height // parts.scale, width // parts.scale)
        self._words = random(parts.tokenizer.model_max_length, unet.config.cross_attention_dim)
        self._times = torch.randint(0, 1000, (count,), generator=generator).to(parts.device)
        self._added: dict[str, Any] | None = None
        if parts.text_encoder_2 is not None:
            sides = torch.tensor([[height, width, 0, 0, height, width]] * count)
            pooled = random(parts.text_encoder_2.config.projection_dim)
            self._added = {"text_embeds": pooled, "time_ids": sides.to(pooled)}
        self._places = [row // 2 % (slots.count + 1) for row in range(count)]

    @torch.inference_mode()
    def forward(self, rows: Sequence[int]) -> torch.Tensor:
        """The U-Net's prediction for `rows` of the supply, on the CPU."""
        chosen = list(rows)
        added = self._added and {name: each[chosen] for name, each in self._added.items()}
        with self._slots.chosen([self._places[row] for row in chosen]):
            predicted = self._parts.predict(self._latents[chosen], self._times[chosen], self._words[chosen], added)
        return predicted.cpu()
