"""A model family behind one small interface; this file is Stable Diffusion 1.x and 2.x.

A family loads a base, turns pictures into latents and words into states, knows what its U-Net predicts, and draws.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dreambooth_trainer.base import check_family
from dreambooth_trainer.faults import BaseModelInvalid, SpecFault


class StableDiffusion:
    """Stable Diffusion 1.x/2.x: one CLIP text encoder, a VAE, a U-Net that predicts ε or v."""

    name = "sd"

    def __init__(self, folder: Path, device: torch.device) -> None:
        """Load the base in `folder` as float32. Raises BaseModelInvalid."""
        from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
        from transformers import CLIPTextModel, CLIPTokenizer

        check_family(folder)
        self.folder, self.device = folder, device
        # The number format to draw in, where parts are kept in different ones; None: each part's own.
        self.autocast: torch.dtype | None = None
        load = {"local_files_only": True, "use_safetensors": True, "torch_dtype": torch.float32}
        try:
            self.unet: Any = UNet2DConditionModel.from_pretrained(folder, subfolder="unet", **load).to(device)
            text_encoder: Any = CLIPTextModel.from_pretrained(
                folder / "text_encoder", local_files_only=True, use_safetensors=True, dtype=torch.float32
            )
            self.text_encoder = text_encoder.to(device)
            self.vae = AutoencoderKL.from_pretrained(folder, subfolder="vae", **load).to(device)
            self.tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
            self.schedule = DDPMScheduler.from_pretrained(folder, subfolder="scheduler")
        except (OSError, ValueError, KeyError, RuntimeError) as e:
            raise BaseModelInvalid(f"baseModel: cannot be loaded: {str(e).splitlines()[0][:500]}") from e
        if self.schedule.config.prediction_type not in ("epsilon", "v_prediction"):
            raise BaseModelInvalid(f"baseModel: prediction type {self.schedule.config.prediction_type!r} is unknown")
        for part in (self.unet, self.text_encoder, self.vae):
            part.requires_grad_(False).eval()

    @property
    def prediction_type(self) -> str:
        """What the U-Net predicts: `epsilon` or `v_prediction`."""
        return self.schedule.config.prediction_type

    @property
    def timesteps(self) -> int:
        """Timesteps of the noise schedule."""
        return self.schedule.config.num_train_timesteps

    def check_words(self, prompt: str, identifier: str) -> None:
        """Whether the text encoder can see `identifier` in `prompt`. Raises SpecFault."""
        unknown = self.tokenizer.unk_token_id
        ids = self.tokenizer(identifier, add_special_tokens=False).input_ids
        if not ids or all(i == unknown for i in ids):
            raise SpecFault(f"subject.identifier: the base's tokenizer does not know {identifier!r}")
        seen = self.token_ids([prompt])[0].tolist()
        if not any(seen[i : i + len(ids)] == ids for i in range(len(seen))):
            raise SpecFault(
                f"subject.prompt: only {self.tokenizer.model_max_length} tokens are read, and {identifier!r} is not "
                "among them: shorten it or set the identifier apart"
            )

    def token_ids(self, prompts: Sequence[str]) -> Tensor:
        """Token ids (N, L) of prompts, padded and cut to what the text encoder reads."""
        return self.tokenizer(
            list(prompts),
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        ).input_ids.to(self.device)

    @torch.no_grad()
    def encode_text(self, prompts: Sequence[str]) -> Tensor:
        """Hidden states (N, L, D) of prompts."""
        return self.text_encoder(self.token_ids(prompts))[0]

    @torch.no_grad()
    def encode_latents(self, images: Sequence[Image.Image], batch: int = 16) -> tuple[Tensor, Tensor]:
        """Mean and deviation of the posterior, each (N, C, h, w), of RGB pictures of one size, scaled, on the CPU."""
        means, deviations = [], []
        for start in range(0, len(images), batch):
            posterior = self.vae.encode(to_tensor(images[start : start + batch]).to(self.device)).latent_dist
            means.append(posterior.mean.cpu())
            deviations.append(posterior.std.cpu())
        factor = self.vae.config.scaling_factor
        shift = getattr(self.vae.config, "shift_factor", None) or 0.0
        return (torch.cat(means) - shift) * factor, torch.cat(deviations) * factor

    def park_vae(self) -> None:
        """Take the VAE off the device: latents are cached; drawing brings it back."""
        self.vae.to("cpu")

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Noisy latents at `timesteps` (N,)."""
        return self.schedule.add_noise(latents, noise, timesteps)

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the U-Net should predict."""
        if self.prediction_type == "epsilon":
            return noise
        return self.schedule.get_velocity(latents, noise, timesteps)

    def draw(
        self, prompts: Sequence[str], seeds: Sequence[int], *, steps: int, guidance: float, resolution: int
    ) -> list[Image.Image]:
        """A picture per prompt and seed, whatever else is in the batch; guidance goes in one pass."""
        from diffusers import StableDiffusionPipeline

        pipeline: Any = StableDiffusionPipeline(
            vae=self.vae.to(self.device),
            text_encoder=self.text_encoder,
            tokenizer=self.tokenizer,
            unet=self.unet,
            scheduler=self._sampler(),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        pipeline.set_progress_bar_config(disable=True)
        was_training = self.unet.training, self.text_encoder.training
        self.unet.eval(), self.text_encoder.eval()
        images: list[Image.Image] = []
        batch = batch_for(resolution)
        mixed = torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None)
        try:
            for start in range(0, len(prompts), batch):
                part = slice(start, start + batch)
                # On the CPU, so that a seed means the same picture on every device.
                generators = [torch.Generator().manual_seed(seed) for seed in seeds[part]]
                with mixed:
                    images += pipeline(
                        list(prompts[part]),
                        num_inference_steps=steps,
                        guidance_scale=guidance,
                        height=resolution,
                        width=resolution,
                        generator=generators,
                    ).images
        finally:
            self.unet.train(was_training[0]), self.text_encoder.train(was_training[1])
        return images

    def sampler_identity(self) -> dict:
        """What makes the sampler, for keys of content."""
        return {"class": type(self._sampler()).__name__, **json.loads(self._sampler().to_json_string())}

    def _sampler(self):
        import diffusers

        index = json.loads((self.folder / "model_index.json").read_text())
        kind = getattr(diffusers, index["scheduler"][1], None)
        if kind is None:
            raise BaseModelInvalid(f"baseModel: scheduler {index['scheduler'][1]!r} is unknown to diffusers")
        return kind.from_pretrained(self.folder, subfolder="scheduler")


def batch_for(resolution: int) -> int:
    """How many pictures are drawn in one batch: 32 small ones, 4 of 512 pixels, 1 of 1024."""
    return max(1, min(32, 4 * 512 * 512 // resolution**2))


def to_tensor(images: Sequence[Image.Image]) -> Tensor:
    """RGB pictures of one size as (N, 3, H, W) in [-1, 1]."""
    pixels = np.stack([np.asarray(image, dtype=np.float32) for image in images])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2) / 127.5 - 1
