"""The one stream of samples: a pure function of (seed, global index), whatever the ranks, workers and restarts.

Sample g of a stream uses picture, mirror, timestep and noise that follow from the seed and g alone. With batch B,
accumulation A and world W, sample b of micro-step a of step s on rank r has g = ((s·A + a)·W + r)·B + b, so a world of
1 and one of 2 consume the same samples in the same order.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

# Timesteps are stratified within blocks of so many samples: as uniform, with less variance.
STRATA = 8
SUBJECT, CLASS = "subject", "class"


@dataclass(frozen=True)
class Draw:
    """What sample `index` of a stream is made of."""

    index: int
    picture: int
    flip: bool
    timestep: int
    # Standard normal, each of a latent's shape: `latent` samples the VAE's posterior, `noise` is added.
    latent: Tensor
    noise: Tensor


def first_index(samples_done: int, micro: int, rank: int, world: int, batch: int) -> int:
    """The global index of the first sample of a rank's batch; `samples_done`: over all ranks, before this step."""
    return samples_done + (micro * world + rank) * batch


def seed_of(*parts: int | str) -> int:
    """A seed of 63 bits from what identifies a random choice."""
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def _generator(*parts: int | str) -> torch.Generator:
    return torch.Generator().manual_seed(seed_of(*parts))


@lru_cache(maxsize=64)
def _order(kind: str, seed: int, round_: int, count: int) -> tuple[int, ...]:
    """The order of `count` things in one round through them."""
    return tuple(torch.randperm(count, generator=_generator("order", kind, seed, round_)).tolist())


def draw(kind: str, seed: int, index: int, *, shapes: Sequence[tuple[int, ...]], timesteps: int, flip: bool) -> Draw:
    """Sample `index` of the stream `kind` over pictures with latents of `shapes`: each comes once per round."""
    round_, place = divmod(index, len(shapes))
    picture = _order(kind, seed, round_, len(shapes))[place]
    block, stratum = divmod(index, STRATA)
    generator = _generator(kind, seed, index)
    mirrored, within = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
    share = (_order(f"{kind}-timesteps", seed, block, STRATA)[stratum] + within) / STRATA
    return Draw(
        index=index,
        picture=picture,
        flip=flip and mirrored < 0.5,
        timestep=min(int(share * timesteps), timesteps - 1),
        latent=torch.randn(shapes[picture], generator=generator),
        noise=torch.randn(shapes[picture], generator=generator),
    )
