"""From words and seeds to pixels, step by step: pictures that are at different steps share a forward pass.

DPM-Solver++(2M) (Lu et al., arXiv 2211.01095) by default, with the base's own noise schedule and prediction type. The
noise of each picture comes from a generator of its own on the CPU, so a seed means the same noise on every device and
in every batch. Only the U-Net sees a batch: words are encoded, and pixels decoded, picture by picture.
"""

import copy
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, NamedTuple

import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    UniPCMultistepScheduler,
)
from PIL import Image

from dreambooth_server.drawing import Drawing, Refused, Sampler
from dreambooth_server.programs import Programs, predict

_SCHEDULERS: dict[Sampler, Any] = {
    Sampler.DPM: DPMSolverMultistepScheduler,
    Sampler.DDIM: DDIMScheduler,
    Sampler.EULER: EulerDiscreteScheduler,
    Sampler.EULER_A: EulerAncestralDiscreteScheduler,
    Sampler.UNIPC: UniPCMultistepScheduler,
}


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
    schedulers: dict[Sampler, Any] = field(default_factory=dict)
    """Those that were needed, unused."""
    programs: Programs | None = None
    """What asks the U-Net where it may be compiled; None: it is asked layer by layer."""

    def predict(
        self, latents: torch.Tensor, times: torch.Tensor, words: torch.Tensor, added: dict[str, torch.Tensor] | None
    ) -> torch.Tensor:
        """As `programs.predict`."""
        if self.programs is not None:
            return self.programs(latents, times, words, added)
        return predict(self.unet, latents, times, words, added)

    @property
    def scale(self) -> int:
        """Pixels per latent, both ways."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    # Kept: diffusers looks through all of a network's parameters each time.
    @cached_property
    def device(self) -> torch.device:
        """Where all of it is."""
        return self.unet.device

    @cached_property
    def dtype(self) -> torch.dtype:
        """The U-Net's."""
        return self.unet.dtype

    def scheduler(self, sampler: Sampler) -> Any:
        """A fresh one: copied, as diffusers takes longer to make one than to draw a step."""
        if sampler not in self.schedulers:
            self.schedulers[sampler] = _SCHEDULERS[sampler].from_config(self.scheduler_config)
        return copy.deepcopy(self.schedulers[sampler])

    @property
    def encoders(self) -> list[tuple[Any, Any]]:
        """Tokenizers with their text encoders."""
        first = [(self.tokenizer, self.text_encoder)]
        return first if self.text_encoder_2 is None else [*first, (self.tokenizer_2, self.text_encoder_2)]


@dataclass
class Run:
    """A picture on its way."""

    drawing: Drawing
    parts: Parts
    words: Words
    """Its rows of the batch: the negative prompt first, where it takes part."""
    added: dict[str, torch.Tensor] | None
    """What SDXL takes beside words, as many rows."""
    scheduler: Any
    latents: torch.Tensor
    """(1, C, h, w), float32."""
    slot: int = 0
    """Where the subject's adapter is; 0: none is switched on."""
    done: int = 0
    """Steps."""
    fault: Exception | None = None
    """Why it goes no further."""
    extra: dict[str, Any] = field(default_factory=dict)
    """What its scheduler's step takes."""

    @property
    def finished(self) -> bool:
        """Whether only decoding is left."""
        return self.done >= len(self.scheduler.timesteps)


@torch.inference_mode()
def begin(parts: Parts, drawing: Drawing, slot: int = 0, read: Callable[[str], Words] | None = None) -> Run:
    """Noise and words of `drawing`; the adapter in `slot` is switched on already. `read` may remember words."""
    read = read or partial(encode, parts)
    words = read(drawing.prompt)
    if drawing.guided:
        words = words.after(_negative(parts, drawing, read))
    added = None if words.pooled is None else _added(words.pooled, drawing)
    scheduler = parts.scheduler(drawing.sampler)
    # Its timesteps stay on the CPU: reading them on a device would wait for the device at each step.
    scheduler.set_timesteps(drawing.steps)
    generator = torch.Generator("cpu").manual_seed(drawing.seed)
    latents = _noise(parts, drawing, generator) * scheduler.init_noise_sigma
    takes = inspect.signature(scheduler.step).parameters
    extra: dict[str, Any] = {"generator": generator} if "generator" in takes else {}
    return Run(drawing, parts, words, added, scheduler, latents, slot, extra=extra)


@torch.inference_mode()
def advance(runs: Sequence[Run], rows: int | None = None) -> None:
    """One step of `runs`, which share a U-Net and a size, in one forward pass.

    The batch is filled up to `rows`, if given, with copies of its first row. A run whose own step fails gets a fault.
    """
    parts = runs[0].parts
    inputs, times = [], []
    for run in runs:
        timestep = run.scheduler.timesteps[run.done]
        inputs += [run.scheduler.scale_model_input(run.latents, timestep)] * run.drawing.rows
        times += [timestep] * run.drawing.rows
    latents, timesteps = torch.cat(inputs), torch.stack(times).to(inputs[0].device)
    words = torch.cat([run.words.states for run in runs])
    added = _joined([run.added for run in runs])
    blank = (rows or len(latents)) - len(latents)
    if blank > 0:
        latents, timesteps, words = (_filled(each, blank) for each in (latents, timesteps, words))
        added = added and {name: _filled(each, blank) for name, each in added.items()}
    predicted = parts.predict(latents.to(parts.dtype), timesteps, words, added)
    begun = 0
    for run in runs:
        own = predicted[begun : begun + run.drawing.rows].float()
        begun += run.drawing.rows
        try:
            _follow(run, own)
        except Exception as e:  # A picture's edge: the others of the batch go on.
            run.fault = e


def _follow(run: Run, predicted: torch.Tensor) -> None:
    """The scheduler's step along the prediction: (1 or 2, C, h, w), float32."""
    if run.drawing.guided:
        without, with_words = predicted.chunk(2)
        predicted = without + run.drawing.guidance_scale * (with_words - without)
    timestep = run.scheduler.timesteps[run.done]
    run.latents = run.scheduler.step(predicted, timestep, run.latents, **run.extra).prev_sample
    run.done += 1


@torch.inference_mode()
def finish(run: Run) -> Image.Image:
    """The picture. Raises Refused when it has no meaning."""
    return decode(run.parts.vae, run.latents)[0]


def _filled(tensor: torch.Tensor, count: int) -> torch.Tensor:
    return torch.cat([tensor, tensor[:1].expand(count, *tensor.shape[1:])])


def _joined(each: Sequence[dict[str, torch.Tensor] | None]) -> dict[str, torch.Tensor] | None:
    found = [one for one in each if one is not None]
    return {name: torch.cat([one[name] for one in found]) for name in found[0]} if found else None


@torch.inference_mode()
def encode(parts: Parts, prompt: str) -> Words:
    """The words' hidden states (1, tokens, width); what exceeds the encoder's length is cut off."""
    spoken, dtype = [parts.spoken(prompt)], parts.dtype
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


def _negative(parts: Parts, drawing: Drawing, read: Callable[[str], Words]) -> Words:
    """The negative prompt's words; where SDXL was trained so, an empty one is all zeros."""
    words = read(drawing.negative_prompt)
    if words.pooled is None or not parts.blank_negative or drawing.negative_prompt:
        return words
    return Words(torch.zeros_like(words.states), torch.zeros_like(words.pooled))


def _added(pooled: torch.Tensor, drawing: Drawing) -> dict[str, torch.Tensor]:
    """SDXL's micro-conditioning: a picture of the size that is asked for, not cut (arXiv 2307.01952, section 2.2)."""
    sizes = [drawing.height, drawing.width, 0, 0, drawing.height, drawing.width]
    return {"text_embeds": pooled, "time_ids": torch.tensor([sizes] * len(pooled)).to(pooled)}


def _noise(parts: Parts, drawing: Drawing, generator: torch.Generator) -> torch.Tensor:
    """Gaussian noise (1, C, h, w), float32."""
    shape = (1, parts.unet.config.in_channels, drawing.height // parts.scale, drawing.width // parts.scale)
    return torch.randn(shape, generator=generator).to(parts.device)


def decode(vae: Any, latents: torch.Tensor) -> list[Image.Image]:
    """Pictures from latents (B, C, h, w). Raises Refused."""
    pixels = vae.decode(latents.to(vae.dtype) / vae.config.scaling_factor).sample.float()
    if not torch.isfinite(pixels).all():
        raise Refused("the model's numbers overflowed: try another seed, fewer steps or less guidance")
    levels = ((pixels / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
    return [Image.fromarray(picture.permute(1, 2, 0).cpu().numpy()) for picture in levels]
