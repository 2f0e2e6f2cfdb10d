"""Latents and captions, cached once, and batches cut from the sample stream."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from dreambooth_trainer.config import Plan
from dreambooth_trainer.family import Family
from dreambooth_trainer.pictures import Picture
from dreambooth_trainer.stream import CLASS, SUBJECT, Draw, draw, first_index


@dataclass(frozen=True)
class Latents:
    """The posteriors of pictures, on the CPU, a tensor for each picture: (mirrored, mean and deviation, C, h, w)."""

    each: tuple[Tensor, ...]

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Of the pictures' latents, (C, h, w) each."""
        return [tuple(tensor.shape[2:]) for tensor in self.each]

    def __len__(self) -> int:
        return len(self.each)

    def sample(self, drawn: Draw) -> Tensor:
        """The latent of one sample of the stream."""
        mean, deviation = self.each[drawn.picture][int(drawn.flip)]
        return mean + deviation * drawn.latent

    def tensors(self) -> dict[str, Tensor]:
        """To be kept by name."""
        return {f"{index:06d}": tensor for index, tensor in enumerate(self.each)}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> "Latents":
        """The inverse of `tensors`."""
        return cls(tuple(tensors[name] for name in sorted(tensors)))


def encode(family: Family, images: Sequence[Image.Image], flip: bool) -> Latents:
    """Encode pictures, and their mirror images where they are used: a VAE is not exactly symmetric."""
    found: dict[int, Tensor] = {}
    for size in dict.fromkeys(image.size for image in images):
        places = [place for place, image in enumerate(images) if image.size == size]
        same = [images[place] for place in places]
        sides = [same, [ImageOps.mirror(image) for image in same]] if flip else [same]
        posteriors = [torch.stack(family.encode_latents(side), dim=1) for side in sides]
        found |= zip(places, torch.stack(posteriors, dim=1), strict=True)
    return Latents(tuple(found[place] for place in range(len(images))))


@dataclass(frozen=True)
class Group:
    """The samples of a batch that have one shape: the U-Net takes them together."""

    # Where they stand in the batch.
    places: list[int]
    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    # Sample i has caption `rows[i]` of the dataset's, and the micro-conditioning `sizes[i]` (N, 6).
    rows: list[int]
    sizes: Tensor
    # How much each place of a latent counts, (N, h, w); None: all alike.
    masks: Tensor | None


@dataclass(frozen=True)
class Batch:
    """One forward pass: the subject's samples first, as many of the class behind them, grouped by shape."""

    groups: list[Group]
    subjects: int
    names: list[str]

    def in_order(self, values: Sequence[Tensor]) -> Tensor:
        """One number per sample, as the groups have them, in the batch's order (N,)."""
        if len(values) == 1:
            return values[0]
        places = [place for group in self.groups for place in group.places]
        each = torch.cat(list(values)).unbind()
        # Not a gather, for the order in which gradients are summed.
        return torch.stack([each[places.index(place)] for place in range(len(places))])


@dataclass(frozen=True)
class Source:
    """Pictures as they are trained on; item i of each list belongs to picture i of `latents`."""

    latents: Latents
    names: list[str]
    # Places of the captions among the run's.
    rows: list[int]
    # Original height and width, top and left of the cut, target height and width, pixels.
    sizes: list[tuple[int, int, int, int, int, int]]
    # How much each place of a latent counts, (h, w) of mean 1; None: all alike.
    masks: list[Tensor] | None = None


def subject_source(latents: Latents, pictures: Sequence[Picture], plan: Plan, captions: Sequence[str]) -> Source:
    """The subject's pictures, each with its own caption of `captions`, size and mask."""
    masks = None
    if any(picture.mask is not None for picture in pictures):
        masks = [mask_weights(picture.mask, s[1:]) for picture, s in zip(pictures, latents.shapes, strict=True)]
    return Source(
        latents,
        [picture.name for picture in pictures],
        [captions.index(plan.caption(picture)) for picture in pictures],
        [(*picture.original, *picture.cut, picture.image.height, picture.image.width) for picture in pictures],
        masks,
    )


def class_source(latents: Latents, side: int, row: int) -> Source:
    """Class images of `side` pixels, whose caption is `row`; no mask holds for them."""
    count = len(latents)
    names = [f"class image {index}" for index in range(count)]
    return Source(latents, names, [row] * count, [(side, side, 0, 0, side, side)] * count)


def mask_weights(mask: Image.Image | None, shape: tuple[int, ...]) -> Tensor:
    """Weights (h, w) of mean 1: white counts fully, black not at all; all alike without a mask."""
    if mask is None:
        return torch.ones(shape)
    small = mask.convert("F").resize((shape[1], shape[0]), Image.Resampling.BOX)
    weights = torch.from_numpy(np.array(small, dtype=np.float32))
    return weights / weights.mean()


@dataclass(frozen=True)
class Dataset:
    """All that is learnt from, and the stream through it."""

    plan: Plan
    subject: Source
    prior: Source | None
    timesteps: int

    @property
    def per_step(self) -> int:
        """Subject's samples of one rank in one optimizer step."""
        return self.plan.batch * self.plan.spec.training.gradient_accumulation

    def batch(self, samples_done: int, micro: int, rank: int, world: int) -> Batch:
        """The batch of `rank` in micro-step `micro` of the step that begins after `samples_done` samples."""
        first = first_index(samples_done, micro, rank, world, self.plan.batch)
        drawn = [
            (source, self._draw(kind, index, source.latents))
            for kind, source in ((SUBJECT, self.subject), (CLASS, self.prior))
            if source is not None
            for index in range(first, first + self.plan.batch)
        ]

        shapes: dict[tuple[int, ...], list[int]] = {}
        for place, (_, d) in enumerate(drawn):
            shapes.setdefault(tuple(d.noise.shape), []).append(place)
        return Batch(
            groups=[self._group(places, drawn) for places in shapes.values()],
            subjects=self.plan.batch,
            names=[f"{s.names[d.picture]} (sample {d.index}, timestep {d.timestep})" for s, d in drawn],
        )

    def _group(self, places: list[int], batch: Sequence[tuple[Source, Draw]]) -> Group:
        drawn = [batch[place] for place in places]

        def moved(values: Tensor) -> Tensor:
            return values.to(self.plan.device, non_blocking=True)

        return Group(
            places=places,
            latents=moved(torch.stack([source.latents.sample(d) for source, d in drawn])),
            noise=moved(torch.stack([d.noise for _, d in drawn])),
            timesteps=moved(torch.tensor([d.timestep for _, d in drawn])),
            rows=[source.rows[d.picture] for source, d in drawn],
            sizes=moved(torch.tensor([source.sizes[d.picture] for source, d in drawn])),
            masks=moved(torch.stack([_mask(source, d) for source, d in drawn])) if self._masked else None,
        )

    @property
    def _masked(self) -> bool:
        return self.subject.masks is not None

    def _draw(self, kind: str, index: int, latents: Latents) -> Draw:
        training = self.plan.spec.training
        return draw(
            kind,
            training.seed,
            index,
            shapes=latents.shapes,
            timesteps=self.timesteps,
            flip=training.flip,
        )


def _mask(source: Source, drawn: Draw) -> Tensor:
    """The weights (h, w) of one sample, mirrored as its picture is."""
    if source.masks is None:
        return torch.ones(drawn.noise.shape[1:])
    mask = source.masks[drawn.picture]
    return mask.flip(-1) if drawn.flip else mask
