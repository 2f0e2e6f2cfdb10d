"""Trains the miniature's U-Net and text encoder on the VAE's latents, and writes the whole pipeline.

Run: python examples/world/train_unet.py --minutes 90 --out build/base       (after train_vae.py)
     python examples/world/train_unet.py --minutes 60 --out build/base --warm examples/base

`<out>` is what `StableDiffusionPipeline.from_pretrained` loads, rewritten every few minutes with
the averaged weights. The objective is v-prediction (Salimans & Ho 2022, appendix D) on Stable Diffusion's
noise schedule, with timesteps stratified over the batch and a tenth of the captions left out, so that
classifier-free guidance works (Ho & Salimans 2022). Held-out subjects are never seen: `world.samples`
does not draw them.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

import loop
import pictures
import tokenizer as words
import torch
import torch.nn.functional as F
import train_vae
from diffusers import (
    AutoencoderKL,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

SCHEDULE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "steps_offset": 1,
}
WIDTH = 96  # of the text encoder
BATCH = 64
CAPTION_DROPOUT = 0.1
WORDINGS = 4  # captions kept for each picture


def make_unet() -> UNet2DConditionModel:
    """4.2 M weights, at 8x8 and 4x4. `attention_head_dim` is the number of heads, a quirk of diffusers."""
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=train_vae.LATENT_CHANNELS,
        out_channels=train_vae.LATENT_CHANNELS,
        cross_attention_dim=WIDTH,
        norm_num_groups=16,
        block_out_channels=(64, 128),
        layers_per_block=1,
        attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
    )


def make_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """0.3 M weights: CLIP's text tower, two layers."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=words.MAX_TOKENS,
        projection_dim=WIDTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    encoder = CLIPTextModel(config)
    # About as long as learnt embeddings become: a word no caption holds, such as `sks`, stays as conspicuous.
    nn.init.normal_(encoder.get_input_embeddings().weight, std=0.1)
    return encoder


class Denoiser(nn.Module):
    """What is learnt: the U-Net and the text encoder, as one module."""

    def __init__(self, unet: UNet2DConditionModel, text_encoder: CLIPTextModel) -> None:
        super().__init__()
        self.unet, self.text_encoder = unet, text_encoder
        self.schedule = DDPMScheduler(**SCHEDULE, clip_sample=False)

    def loss(self, latents: Tensor, ids: Tensor) -> Tensor:
        """Mean squared error in v, of latents (B, 8, 8, 8) of unit variance and token ids (B, 16)."""
        count, steps = len(latents), SCHEDULE["num_train_timesteps"]
        strata = (torch.arange(count) + torch.rand(count)) / count
        times = (strata * steps).long().clamp(max=steps - 1)
        noise = torch.randn_like(latents)
        noisy = self.schedule.add_noise(latents, noise, times)
        target = self.schedule.get_velocity(latents, noise, times)
        states = self.text_encoder(ids).last_hidden_state
        return F.mse_loss(self.unet(noisy, times, states).sample, target)


def make_denoiser(tokenizer: CLIPTokenizer, warm: Path | None) -> Denoiser:
    """Fresh, or with the weights of an earlier base of the same shape."""
    denoiser = Denoiser(make_unet(), make_text_encoder(tokenizer))
    if warm:
        unet = UNet2DConditionModel.from_pretrained(warm, subfolder="unet")
        text_encoder = CLIPTextModel.from_pretrained(warm, subfolder="text_encoder")
        denoiser.unet.load_state_dict(unet.state_dict())
        denoiser.text_encoder.load_state_dict(text_encoder.state_dict())
    return denoiser


@torch.no_grad()
def encode_all(vae: AutoencoderKL, pixels: Tensor) -> Tensor:
    """Latents of unit variance (N, 8, 8, 8) of uint8 pictures: the posterior's means."""
    means = [vae.encode(pictures.normalise(part)).latent_dist.mean for part in pixels.split(256)]
    return torch.cat(means) * vae.config.scaling_factor


class Batches:
    """Random batches of latents and token ids, with captions left out now and then."""

    def __init__(self, vae: AutoencoderKL, tokenizer: CLIPTokenizer, count: int) -> None:
        samples = pictures.draw_samples(count, pictures.TRAIN_SEED)
        self.latents = encode_all(vae, samples.pixels)
        self.ids = torch.stack([words.encode(tokenizer, samples.captions(seed)) for seed in range(WORDINGS)])
        self.empty = words.encode(tokenizer, [""])[0]

    def next(self) -> tuple[Tensor, Tensor]:
        rows = torch.randint(0, len(self.latents), (BATCH,))
        ids = self.ids[torch.randint(0, WORDINGS, (BATCH,)), rows]
        ids[torch.rand(BATCH) < CAPTION_DROPOUT] = self.empty
        return self.latents[rows], ids


def export(denoiser: Denoiser, vae: AutoencoderKL, tokenizer: CLIPTokenizer, out: Path) -> None:
    """Write the pipeline, in fp16 but for the text encoder.

    transformers loads weights in the type they were saved in and diffusers in fp32: with both in fp16, a plain
    `from_pretrained` would mix the two.
    """
    pipeline = StableDiffusionPipeline(
        vae=copy.deepcopy(vae).half(),
        text_encoder=denoiser.text_encoder,
        tokenizer=tokenizer,
        unet=copy.deepcopy(denoiser.unet).half(),
        scheduler=DPMSolverMultistepScheduler(**SCHEDULE),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=90)
    parser.add_argument("--out", type=Path, required=True, help="the base's folder, which holds `vae` already")
    parser.add_argument("--warm", type=Path, help="a base whose U-Net and text encoder to begin with")
    parser.add_argument("--pictures", type=int, default=40_000)
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    loop.prepare_torch(0, args.threads)
    vae = AutoencoderKL.from_pretrained(args.out, subfolder="vae")
    tokenizer = words.make_tokenizer()
    batches = Batches(vae, tokenizer, args.pictures)
    denoiser = make_denoiser(tokenizer, args.warm)
    plan = loop.Plan(args.out.with_name(args.out.name + ".unet"), args.minutes, args.rate)
    loop.train(
        denoiser, plan, lambda: denoiser.loss(*batches.next()), lambda: export(denoiser, vae, tokenizer, args.out)
    )


if __name__ == "__main__":
    main()
