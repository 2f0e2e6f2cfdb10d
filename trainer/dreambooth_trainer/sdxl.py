"""Stable Diffusion XL (Podell et al., arXiv 2307.01952): two text encoders, a pooled embedding, micro-conditioning."""

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from dreambooth_trainer.family import Family


class StableDiffusionXL(Family):
    """Conditioning (N, L + 1, D1 + D2): both encoders' last but one hidden states side by side.

    The second's pooled embedding is the last row, filled up with zeros: what belongs together stays together.
    """

    name = "sdxl"
    pipeline = "StableDiffusionXLPipeline"
    encoder_names = ("text_encoder", "text_encoder_2")
    tokenizer_names = ("tokenizer", "tokenizer_2")

    @staticmethod
    def _encoder_kinds() -> tuple[Any, ...]:
        from transformers import CLIPTextModel, CLIPTextModelWithProjection

        return CLIPTextModel, CLIPTextModelWithProjection

    @staticmethod
    def condition(encoders: Mapping[str, nn.Module], ids: Tensor) -> Tensor:
        """Both encoders' conditioning of token ids (N, 2, L)."""
        first = encoders["text_encoder"](ids[:, 0], output_hidden_states=True)
        second = encoders["text_encoder_2"](ids[:, 1], output_hidden_states=True)
        states = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1)
        pooled = second.text_embeds
        return torch.cat([states, pad(pooled, (0, states.shape[-1] - pooled.shape[-1])).unsqueeze(1)], dim=1)

    def predict(
        self, unet: Callable[..., Any], noisy: Tensor, timesteps: Tensor, words: Tensor, sizes: Tensor
    ) -> Tensor:
        """The U-Net's prediction."""
        pooled = words[:, -1, : self._pooled_width]
        added = {"text_embeds": pooled, "time_ids": sizes.to(words.dtype)}
        return unet(noisy, timesteps, words[:, :-1], added_cond_kwargs=added, return_dict=False)[0]

    @cached_property
    def _pooled_width(self) -> int:
        """Numbers in the pooled embedding, known without the encoder."""
        from transformers import CLIPTextConfig

        config: Any = CLIPTextConfig.from_pretrained(self.folder / "text_encoder_2", local_files_only=True)
        return config.projection_dim

    def unread(self) -> dict[str, tuple[str, ...]]:
        """Of the first encoder only the last but one hidden states are read: its last layer and norm say nothing."""
        encoder = self.encoders["text_encoder"]
        last = f"encoder.layers.{encoder.config.num_hidden_layers - 1}."
        ends = (last, "final_layer_norm.")
        return {"text_encoder": (*ends, *(f"text_model.{end}" for end in ends))}
