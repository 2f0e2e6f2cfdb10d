"""The denoising loop: from words and seeds to pixels, guidance in one forward pass.

DPM-Solver++(2M) (Lu et al., arXiv 2211.01095) with the base's own noise schedule and prediction type. The noise of each
picture comes from a generator of its own on the CPU, so a seed means the same noise on every device and in every batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DPMSolverMultistepScheduler
from PIL import Image

from dreambooth_server.drawing import Cancelled, Drawing, Refused


@dataclass(frozen=True)
class Parts:
    """The networks that draw one model, on one device, in evaluation mode. diffusers' classes carry no types."""

    tokenizer: Any
    """CLIPTokenizer."""
    text_encoder: Any
    """CLIPTextModel."""
    unet: Any
    """UNet2DConditionModel."""
    vae: Any
    """AutoencoderKL."""
    scheduler_config: dict[str, Any]
    """The base's: noise schedule and prediction type."""

    @property
    def scale(self) -> int:
        """Pixels per latent, both ways."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def device(self) -> torch.device:
        return self.unet.device


@torch.inference_mode()
def sample(parts: Parts, drawings: Sequence[Drawing], stop: Callable[[], bool] = lambda: False) -> list[Image.Image]:
    """Draw `drawings`, which all have one `shape`; `stop` is asked before each step.

    Raises Cancelled when `stop` says so, Refused when a picture has no meaning.
    """
    first = drawings[0]
    words = encode(parts, [d.prompt for d in drawings])
    if first.guided:
        words = torch.cat([encode(parts, [d.negative_prompt for d in drawings]), words])
    scales = torch.tensor([d.guidance_scale for d in drawings], device=parts.device).view(-1, 1, 1, 1)
    scheduler = DPMSolverMultistepScheduler.from_config(parts.scheduler_config)
    scheduler.set_timesteps(first.steps, device=parts.device)
    latents = initial_noise(parts, drawings) * scheduler.init_noise_sigma
    for timestep in scheduler.timesteps:
        if stop():
            raise Cancelled
        prediction = predict(parts.unet, scheduler.scale_model_input(latents, timestep), timestep, words, scales)
        latents = scheduler.step(prediction, timestep, latents).prev_sample
    return decode(parts.vae, latents)


def predict(
    unet: Any, latents: torch.Tensor, timestep: torch.Tensor, words: torch.Tensor, scales: torch.Tensor
) -> torch.Tensor:
    """The guided prediction for latents (B, C, h, w) in float32.

    `words` (2B, tokens, width) holds the negative prompts first, then the prompts: both go through the U-Net in one
    batch. With only B rows there is no guidance.
    """
    guided = len(words) == 2 * len(latents)
    batch = torch.cat([latents, latents]) if guided else latents
    prediction = unet(batch.to(unet.dtype), timestep, encoder_hidden_states=words).sample.float()
    if not guided:
        return prediction
    without, with_words = prediction.chunk(2)
    return without + scales * (with_words - without)


def encode(parts: Parts, prompts: Sequence[str]) -> torch.Tensor:
    """The words' hidden states (B, tokens, width); what exceeds the encoder's length is cut off."""
    tokens = parts.tokenizer(
        list(prompts), padding="max_length", max_length=parts.tokenizer.model_max_length, truncation=True,
        return_tensors="pt",
    )  # fmt: skip
    return parts.text_encoder(tokens.input_ids.to(parts.device))[0].to(parts.unet.dtype)


def initial_noise(parts: Parts, drawings: Sequence[Drawing]) -> torch.Tensor:
    """Gaussian noise (B, C, h, w), float32: picture by picture from its own seed."""
    channels = parts.unet.config.in_channels
    noise = [
        torch.randn(
            (channels, d.height // parts.scale, d.width // parts.scale),
            generator=torch.Generator("cpu").manual_seed(d.seed),
        )
        for d in drawings
    ]
    return torch.stack(noise).to(parts.device)


def decode(vae: Any, latents: torch.Tensor) -> list[Image.Image]:
    """Pictures from latents (B, C, h, w). Raises Refused."""
    pixels = vae.decode(latents.to(vae.dtype) / vae.config.scaling_factor).sample.float()
    if not torch.isfinite(pixels).all():
        raise Refused("the model's numbers overflowed: try another seed, fewer steps or less guidance")
    levels = ((pixels / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
    return [Image.fromarray(picture.permute(1, 2, 0).cpu().numpy()) for picture in levels]
