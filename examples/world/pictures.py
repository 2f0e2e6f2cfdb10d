"""Training data as tensors: the world's samples, drawn once and kept in memory."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
import world
from torch import Tensor

TRAIN_SEED, CHECK_SEED = 1, 1001


@dataclass(frozen=True)
class Samples:
    pixels: Tensor  # (N, 3, 32, 32) uint8
    individuals: list[world.Individual]
    scenes: list[str]

    def captions(self, seed: int) -> list[str]:
        """One caption a picture; another seed words them differently."""
        rng = random.Random(seed)
        return [world.caption(i, s, rng) for i, s in zip(self.individuals, self.scenes, strict=True)]

    @property
    def kinds(self) -> Tensor:
        return torch.tensor([world.CLASSES.index(i.kind) for i in self.individuals])

    @property
    def scene_numbers(self) -> Tensor:
        names = list(world.SCENES)
        return torch.tensor([names.index(s) for s in self.scenes])


def to_tensor(pictures: list[np.ndarray]) -> Tensor:
    """(N, 3, 32, 32) uint8 of pictures (32, 32, 3)."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()


def draw_samples(count: int, seed: int) -> Samples:
    chosen = list(itertools.islice(world.samples(seed), count))
    pixels = to_tensor([world.draw(*sample) for sample in chosen])
    return Samples(pixels, [c[0] for c in chosen], [c[1] for c in chosen])


def normalise(pixels: Tensor) -> Tensor:
    """uint8 to float in [-1, 1], the range of the VAE."""
    return pixels.float() / 127.5 - 1


def to_pictures(images: Tensor) -> list[np.ndarray]:
    """Inverse of `normalise`, as arrays (32, 32, 3) uint8."""
    scaled = ((images.clamp(-1, 1) + 1) * 127.5).round().byte()
    return list(scaled.permute(0, 2, 3, 1).numpy())


def roughen(images: Tensor) -> Tensor:
    """Images (B, 3, 32, 32) as a generator or a resize might spoil them: blurred in part, with some noise."""
    soft = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    share = torch.rand(len(images), 1, 1, 1)
    noise = 0.15 * torch.rand(len(images), 1, 1, 1) * torch.randn_like(images)
    return images.lerp(soft, share) + noise
