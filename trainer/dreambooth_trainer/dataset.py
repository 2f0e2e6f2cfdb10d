"""Latents and captions, cached once, and batches cut from the sample stream."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image, ImageOps
from torch import Tensor

from dreambooth_trainer.config import Plan
from dreambooth_trainer.family import StableDiffusion
from dreambooth_trainer.stream import CLASS, SUBJECT, Draw, draw, first_index


@dataclass(frozen=True)
class Latents:
    """The posteriors of pictures, on the CPU: `mean` and `deviation` are (mirrored, N, C, h, w)."""

    mean: Tensor
    deviation: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one latent."""
        return tuple(self.mean.shape[2:])

    def __len__(self) -> int:
        return self.mean.shape[1]

    def sample(self, drawn: Draw) -> Tensor:
        """The latent of one sample of the stream."""
        which = int(drawn.flip), drawn.picture
        return self.mean[which] + self.deviation[which] * drawn.latent


def encode(family: StableDiffusion, images: Sequence[Image.Image], flip: bool) -> Latents:
    """Encode pictures, and their mirror images where they are used: a VAE is not exactly symmetric."""
    means, deviations = [], []
    for mirrored in (False, True) if flip else (False,):
        mean, deviation = family.encode_latents([ImageOps.mirror(i) for i in images] if mirrored else images)
        means.append(mean)
        deviations.append(deviation)
    return Latents(torch.stack(means), torch.stack(deviations))


@dataclass(frozen=True)
class Batch:
    """One forward pass: the subject's samples first, as many of the class behind them."""

    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    subjects: int
    names: list[str]


@dataclass(frozen=True)
class Dataset:
    """All that is learnt from, and the stream through it."""

    plan: Plan
    subject: Latents
    subject_names: list[str]
    prior: Latents | None
    timesteps: int

    @property
    def per_step(self) -> int:
        """Subject's samples of one rank in one optimizer step."""
        return self.plan.batch * self.plan.spec.training.gradient_accumulation

    def batch(self, samples_done: int, micro: int, rank: int, world: int) -> Batch:
        """The batch of `rank` in micro-step `micro` of the step that begins after `samples_done` samples."""
        first = first_index(samples_done, micro, rank, world, self.plan.batch)
        latents, noise, timesteps, names = [], [], [], []
        for kind, source in ((SUBJECT, self.subject), (CLASS, self.prior)):
            if source is None:
                continue
            for index in range(first, first + self.plan.batch):
                drawn = self._draw(kind, index, source)
                latents.append(source.sample(drawn))
                noise.append(drawn.noise)
                timesteps.append(drawn.timestep)
                name = self.subject_names[drawn.picture] if kind == SUBJECT else f"class image {drawn.picture}"
                names.append(f"{name} (sample {index}, timestep {drawn.timestep})")
        device = self.plan.device
        return Batch(
            torch.stack(latents).to(device, non_blocking=True),
            torch.stack(noise).to(device, non_blocking=True),
            torch.tensor(timesteps).to(device, non_blocking=True),
            self.plan.batch,
            names,
        )

    def _draw(self, kind: str, index: int, source: Latents) -> Draw:
        training = self.plan.spec.training
        return draw(
            kind,
            training.seed,
            index,
            pictures=len(source),
            shape=source.shape,
            timesteps=self.timesteps,
            flip=training.flip,
        )
