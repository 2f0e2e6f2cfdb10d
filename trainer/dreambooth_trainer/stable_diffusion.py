"""Stable Diffusion 1.x and 2.x: one CLIP text encoder, whose last hidden states condition the U-Net."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from dreambooth_trainer.family import Family


class StableDiffusion(Family):
    """Conditioning (N, L, D): the text encoder's hidden states."""

    name = "sd"
    pipeline = "StableDiffusionPipeline"
    encoder_names = ("text_encoder",)
    tokenizer_names = ("tokenizer",)

    @staticmethod
    def _encoder_kinds() -> tuple[Any, ...]:
        from transformers import CLIPTextModel

        return (CLIPTextModel,)

    @staticmethod
    def condition(encoders: Mapping[str, nn.Module], ids: Tensor) -> Tensor:
        """Hidden states of token ids (N, L)."""
        return encoders["text_encoder"](ids)[0]

    def predict(
        self, unet: Callable[..., Any], noisy: Tensor, timesteps: Tensor, words: Tensor, sizes: Tensor
    ) -> Tensor:
        """The U-Net's prediction; `sizes` is ignored."""
        return unet(noisy, timesteps, words, return_dict=False)[0]

    def _pipeline_options(self) -> dict[str, Any]:
        return {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
