"""Trains the miniature's AutoencoderKL: 32x32 pictures to 8x8 latents of 8 channels, and back.

Run: python examples/world/train_vae.py --minutes 12 --out build/base

Writes `<out>/vae` and a sheet of pictures over their reconstructions. The pull to the normal prior (KL)
is stronger than Stable Diffusion's 1e-6: its noise teaches the decoder to draw cleanly from the imperfect
latents of a small U-Net.
"""

from __future__ import annotations

import argparse
import copy
import itertools
from pathlib import Path

import loop
import pictures
import torch
import torch.nn.functional as F
import world
from diffusers import AutoencoderKL
from torch import Tensor

LATENT_CHANNELS = 8
KL_WEIGHT = 1e-3
BATCH = 32


def make_vae() -> AutoencoderKL:
    """0.66 M weights."""
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=world.SIZE,
        mid_block_add_attention=False,
        scaling_factor=1.0,
    )
    with torch.no_grad():  # begin with small posterior variances: noise first would hide the picture
        vae.quant_conv.bias[LATENT_CHANNELS:] = -5.0
        vae.quant_conv.weight[LATENT_CHANNELS:] *= 0.1
    return vae


def vae_loss(vae: AutoencoderKL, images: Tensor) -> Tensor:
    """Reconstruction (L1 + MSE) and KL per latent value, of images (B, 3, 32, 32) in [-1, 1]."""
    posterior = vae.encode(images).latent_dist
    output = vae.decode(posterior.sample()).sample
    values = posterior.mean[0].numel()
    reconstruction = F.l1_loss(output, images) + F.mse_loss(output, images)
    return reconstruction + KL_WEIGHT * posterior.kl().mean() / values


@torch.no_grad()
def reconstruct(vae: AutoencoderKL, images: Tensor) -> Tensor:
    parts = [vae.decode(vae.encode(part).latent_dist.mean).sample for part in images.split(64)]
    return torch.cat(parts).clamp(-1, 1)


def psnr(images: Tensor, others: Tensor) -> float:
    """Peak signal-to-noise ratio in dB, of images in [-1, 1]."""
    return (10 * torch.log10(4 / F.mse_loss(images, others))).item()


def scaling_factor(vae: AutoencoderKL, images: Tensor) -> float:
    """What brings latents to unit variance (Rombach et al. 2022, section G)."""
    return 1 / vae.encode(images).latent_dist.sample().std().item()


@torch.no_grad()
def sensitivity(vae: AutoencoderKL, latents: Tensor, step: float = 0.1) -> Tensor:
    """How much pictures change with each pair of latent channels: mean of J^T J at single places, (C, C).

    `latents` (B, C, 8, 8) are unscaled. Several places move at once, too far apart to meet in the picture.
    """
    still = vae.decode(latents).sample
    changes = []
    for channel in range(latents.shape[1]):
        moved = latents.clone()
        moved[:, channel, 1::3, 1::3] += step
        changes.append(((vae.decode(moved).sample - still) / step).flatten(1))
    jacobian = torch.stack(changes, 1)
    return torch.einsum("bcp,bdp->cd", jacobian, jacobian) / (len(latents) * 9)


@torch.no_grad()
def make_isometric(vae: AutoencoderKL, images: Tensor) -> None:
    """Change the basis of the latent channels so that a unit step changes the picture equally in any direction.

    KL whitens latents: what hardly shows in the picture gets as much variance as what matters, and a small
    U-Net spends itself on it. The change is linear, so the two 1x1 convolutions beside the latents absorb it,
    and pictures stay what they were. Posterior variances become constants, for their basis is no longer diagonal.
    """
    posterior = vae.encode(images).latent_dist
    values, vectors = torch.linalg.eigh(sensitivity(vae, posterior.mean[:64]))
    root = values.clamp(min=0.02 * values.max().item()).sqrt()
    forward, back = vectors @ torch.diag(root) @ vectors.T, vectors @ torch.diag(1 / root) @ vectors.T
    weight, bias, count = vae.quant_conv.weight, vae.quant_conv.bias, LATENT_CHANNELS
    weight[:count] = torch.einsum("ij,jkhw->ikhw", forward, weight[:count])
    bias[:count] = forward @ bias[:count]
    weight[count:] = 0
    bias[count:] = (forward.square() @ posterior.var.mean((0, 2, 3))).log()
    vae.post_quant_conv.weight.copy_(torch.einsum("ijhw,jk->ikhw", vae.post_quant_conv.weight, back))


def export(trained: AutoencoderKL, out: Path, check: Tensor, subjects: Tensor) -> None:
    """Write the weights as fp16, a sheet, and print what the pictures lose."""
    vae = copy.deepcopy(trained)
    make_isometric(vae, check)
    vae.register_to_config(scaling_factor=round(scaling_factor(vae, check), 5))
    output = reconstruct(vae, check)
    held_out = reconstruct(vae, subjects)
    spread = vae.encode(check).latent_dist.std.mean() * vae.config.scaling_factor
    print(
        f"PSNR {psnr(check, output):.2f} dB, of held-out subjects {psnr(subjects, held_out):.2f} dB, "
        f"posterior deviation {spread:.3f}",
        flush=True,
    )
    vae.half().save_pretrained(out / "vae")
    rows = [pictures.to_pictures(part) for part in (check[:12], output[:12], subjects[:12], held_out[:12])]
    world.sheet(rows).save(out / "vae.png")


def subject_pictures() -> Tensor:
    drawn = itertools.chain.from_iterable(world.portraits(s, 6, 7) for s in world.HELD_OUT.values())
    return pictures.normalise(pictures.to_tensor([picture for picture, _ in drawn]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=12)
    parser.add_argument("--out", type=Path, required=True, help="the base's folder; the run's state lies beside it")
    parser.add_argument("--pictures", type=int, default=30_000)
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    loop.prepare_torch(0, args.threads)
    data = pictures.draw_samples(args.pictures, pictures.TRAIN_SEED).pixels
    check = pictures.normalise(pictures.draw_samples(256, pictures.CHECK_SEED).pixels)
    subjects = subject_pictures()
    vae = make_vae()
    args.out.mkdir(parents=True, exist_ok=True)

    def loss() -> Tensor:
        return vae_loss(vae, pictures.normalise(data[torch.randint(0, len(data), (BATCH,))]))

    plan = loop.Plan(args.out.with_name(args.out.name + ".vae"), args.minutes, 2e-3, save_minutes=2, weight_decay=1e-4)
    loop.train(vae, plan, loss, lambda: export(vae, args.out, check, subjects))


if __name__ == "__main__":
    main()
