"""The denoising loop: from words and seeds to pixels, guidance in one forward pass.

DPM-Solver++(2M) (Lu et al., arXiv 2211.01095) with the base's own noise schedule and prediction type. The noise of each
picture comes from a generator of its own on the CPU, so a seed means the same noise on every device and in every batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from diffusers import DPMSolverMultistepScheduler
from PIL import Image

from dreambooth_server.drawing import Cancelled, Drawing, Refused


class Words(NamedTuple):
    """What prompts mean to a U-Net."""

    states: torch.Tensor
    """(B, tokens, width)."""
    pooled: torch.Tensor | None
    """(B, width), where the family has it (SDXL)."""

    def after(self, other: "Words") -> "Words":
        """One batch: `other`'s rows, then these."""
        if self.pooled is None or other.pooled is None:
            return Words(torch.cat([other.states, self.states]), None)
        return Words(torch.cat([other.states, self.states]), torch.cat([other.pooled, self.pooled]))


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
    tokenizer_2: Any = None
    """SDXL's second, and its encoder: CLIPTextModelWithProjection."""
    text_encoder_2: Any = None
    blank_negative: bool = True
    """Whether an empty negative prompt means zeros, as SDXL was trained (`force_zeros_for_empty_prompt`)."""
    spoken: Callable[[str], str] = str
    """The prompt as the tokenizer gets it: with the learned token of the subject, if it has one."""

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
        words = words.after(_negative(parts, drawings))
    added = None if words.pooled is None else _added(words.pooled, first)
    scales = torch.tensor([d.guidance_scale for d in drawings], device=parts.device).view(-1, 1, 1, 1)
    scheduler = DPMSolverMultistepScheduler.from_config(parts.scheduler_config)
    scheduler.set_timesteps(first.steps, device=parts.device)
    latents = initial_noise(parts, drawings) * scheduler.init_noise_sigma
    for timestep in scheduler.timesteps:
        if stop():
            raise Cancelled
        prediction = predict(
            parts.unet, scheduler.scale_model_input(latents, timestep), timestep, words.states, scales, added
        )
        latents = scheduler.step(prediction, timestep, latents).prev_sample
    return decode(parts.vae, latents)


def predict(
    unet: Any,
    latents: torch.Tensor,
    timestep: torch.Tensor,
    words: torch.Tensor,
    scales: torch.Tensor,
    added: dict[str, torch.Tensor] | None = None,
) -> torch.Tensor:
    """The guided prediction for latents (B, C, h, w) in float32.

    `words` (2B, tokens, width) holds the negative prompts first, then the prompts: both go through the U-Net in one
    batch. With only B rows there is no guidance. `added` is what SDXL takes beside words, as many rows.
    """
    guided = len(words) == 2 * len(latents)
    batch = torch.cat([latents, latents]) if guided else latents
    prediction = unet(
        batch.to(unet.dtype), timestep, encoder_hidden_states=words, added_cond_kwargs=added
    ).sample.float()
    if not guided:
        return prediction
    without, with_words = prediction.chunk(2)
    return without + scales * (with_words - without)


def encode(parts: Parts, prompts: Sequence[str]) -> Words:
    """The words' hidden states (B, tokens, width); what exceeds the encoder's length is cut off."""
    spoken = [parts.spoken(prompt) for prompt in prompts]
    dtype = parts.unet.dtype
    first = _ids(parts.tokenizer, spoken).to(parts.device)
    if parts.text_encoder_2 is None:
        return Words(parts.text_encoder(first)[0].to(dtype), None)
    second = _ids(parts.tokenizer_2, spoken).to(parts.device)
    one = parts.text_encoder(first, output_hidden_states=True)
    two = parts.text_encoder_2(second, output_hidden_states=True)
    states = torch.cat([one.hidden_states[-2], two.hidden_states[-2]], dim=-1)
    return Words(states.to(dtype), two.text_embeds.to(dtype))


def _ids(tokenizer: Any, prompts: Sequence[str]) -> torch.Tensor:
    return tokenizer(
        list(prompts), padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt"
    ).input_ids


def _negative(parts: Parts, drawings: Sequence[Drawing]) -> Words:
    """The negative prompts' words; where SDXL was trained so, an empty one is all zeros."""
    words = encode(parts, [d.negative_prompt for d in drawings])
    if words.pooled is None or not parts.blank_negative:
        return words
    said = torch.tensor([bool(d.negative_prompt) for d in drawings], device=words.states.device)
    return Words(words.states * said.view(-1, 1, 1), words.pooled * said.view(-1, 1))


def _added(pooled: torch.Tensor, first: Drawing) -> dict[str, torch.Tensor]:
    """SDXL's micro-conditioning: a picture of the size that is asked for, not cut (arXiv 2307.01952, section 2.2)."""
    sizes = [first.height, first.width, 0, 0, first.height, first.width]
    return {"text_embeds": pooled, "time_ids": torch.tensor([sizes] * len(pooled)).to(pooled)}


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
