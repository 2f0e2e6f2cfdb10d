"""A model family behind one small interface; `stable_diffusion.py` and `sdxl.py` are the families.

A family loads a base, turns pictures into latents and words into conditioning, asks its U-Net, and draws. Conditioning
is one tensor (N, L, D) in every family, so that it can be kept, cut and stored the same way.
"""

import json
import re
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from dreambooth_trainer.base import family_name
from dreambooth_trainer.faults import BaseModelInvalid, SpecFault
from dreambooth_trainer.parts import Parts
from dreambooth_trainer.token import LearnedEmbedding, learned_token


class Family(Parts):
    """What families share: one or more CLIP text encoders, a VAE, a U-Net that predicts ε or v."""

    # diffusers' pipeline, by name: its import takes seconds.
    pipeline: ClassVar[str]

    @staticmethod
    @abstractmethod
    def condition(encoders: Mapping[str, nn.Module], ids: Tensor) -> Tensor:
        """Conditioning (N, L, D) of token ids as `token_ids` gives them; differentiable."""

    @abstractmethod
    def predict(
        self, unet: Callable[..., Any], noisy: Tensor, timesteps: Tensor, words: Tensor, sizes: Tensor
    ) -> Tensor:
        """The U-Net's prediction for `noisy` (N, C, h, w), with conditioning (N, L, D).

        `sizes` (N, 6) is each picture's micro-conditioning: original height and width, top and left of the cut, target
        height and width, pixels (Podell et al., arXiv 2307.01952, section 2.2); families without it ignore it.
        """

    def unread(self) -> dict[str, tuple[str, ...]]:
        """Beginnings of the names of text encoders' parameters that conditioning does not depend on, by encoder."""
        return {}

    @property
    def text_encoder(self) -> Any:
        """The first text encoder."""
        return self.encoders[self.encoder_names[0]]

    @property
    def tokenizer(self) -> Any:
        """The first tokenizer."""
        return self.tokenizers[0]

    @property
    def prediction_type(self) -> str:
        """What the U-Net predicts: `epsilon` or `v_prediction`."""
        return self.schedule.config.prediction_type

    @property
    def timesteps(self) -> int:
        """Timesteps of the noise schedule."""
        return self.schedule.config.num_train_timesteps

    def learn(self, identifier: str, class_name: str) -> dict[str, LearnedEmbedding]:
        """Give `identifier` an embedding of its own in every text encoder, which begins as the class's; by encoder."""
        self.identifier = identifier
        found = {}
        for tokenizer, (name, encoder) in zip(self.tokenizers, self.encoders.items(), strict=True):
            start = tokenizer(class_name, add_special_tokens=False).input_ids
            tokenizer.add_tokens([learned_token(identifier)])
            embedding = LearnedEmbedding(
                encoder.get_input_embeddings(), tokenizer.convert_tokens_to_ids(learned_token(identifier)), start
            )
            encoder.set_input_embeddings(embedding)
            for module in encoder.modules():
                # Old configs say 2, by which transformers takes the highest id for the end: now the new token's.
                if getattr(module, "eos_token_id", None) == 2:
                    module.eos_token_id = tokenizer.eos_token_id
            found[name] = embedding
        return found

    def spoken(self, prompt: str) -> str:
        """`prompt` as the tokenizers get it: with the learned token where the identifier is."""
        if self.identifier is None:
            return prompt
        token = learned_token(self.identifier)
        return re.sub(rf"(?<![\w-]){re.escape(self.identifier)}(?![\w-])", lambda _: token, prompt)

    def check_words(self, prompt: str, identifier: str) -> None:
        """Whether the text encoder can see `identifier` in `prompt`. Raises SpecFault."""
        unknown = self.tokenizer.unk_token_id
        ids = self.tokenizer(identifier, add_special_tokens=False).input_ids
        if not ids or all(i == unknown for i in ids):
            raise SpecFault(f"subject.identifier: the base's tokenizer does not know {identifier!r}")
        if not self.sees(identifier, prompt):
            raise SpecFault(
                f"subject.prompt: only {self.tokenizer.model_max_length} tokens are read, and {identifier!r} is not "
                "among them: shorten it or set the identifier apart"
            )

    def sees(self, word: str, prompt: str) -> bool:
        """Whether `word` is among what is read of `prompt`."""
        ids = self.tokenizer(word, add_special_tokens=False).input_ids
        seen = _ids(self.tokenizer, [prompt])[0].tolist()
        return any(seen[i : i + len(ids)] == ids for i in range(len(seen)))

    def token_ids(self, prompts: Sequence[str]) -> Tensor:
        """Token ids of prompts, padded and cut to what is read: (N, L), or (N, encoders, L) if there are several."""
        spoken = [self.spoken(prompt) for prompt in prompts]
        each = [_ids(tokenizer, spoken) for tokenizer in self.tokenizers]
        return (each[0] if len(each) == 1 else torch.stack(each, dim=1)).to(self.device)

    @torch.no_grad()
    def encode_text(self, prompts: Sequence[str]) -> Tensor:
        """Conditioning (N, L, D) of prompts."""
        return self.condition(self.encoders, self.token_ids(prompts))

    @torch.no_grad()
    def encode_latents(self, images: Sequence[Image.Image], batch: int = 16) -> tuple[Tensor, Tensor]:
        """Mean and deviation of the posterior, each (N, C, h, w), of RGB pictures of one size, scaled, on the CPU."""
        means, deviations = [], []
        batch = min(batch, batch_for(max(images[0].size)))
        for start in range(0, len(images), batch):
            posterior = self.vae.encode(to_tensor(images[start : start + batch]).to(self.device)).latent_dist
            means.append(posterior.mean.cpu())
            deviations.append(posterior.std.cpu())
        factor, shift = self._scale()
        return (torch.cat(means) - shift) * factor, torch.cat(deviations) * factor

    def _scale(self) -> tuple[float, float]:
        config = self.vae.config
        return config.scaling_factor, getattr(config, "shift_factor", None) or 0.0

    @torch.no_grad()
    def decode(self, latents: Tensor) -> list[Image.Image]:
        """Pictures of latents (N, C, h, w), in float32 whatever the U-Net computes in."""
        factor, shift = self._scale()
        pixels = self.vae.decode(latents.float() / factor + shift).sample
        if not torch.isfinite(pixels).all():
            raise BaseModelInvalid("the VAE's numbers are not finite: the base's vae or the trained weights are broken")
        levels = ((pixels / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
        return [Image.fromarray(picture.permute(1, 2, 0).cpu().numpy()) for picture in levels]

    def park_vae(self) -> None:
        """Take the VAE off the device, if it was loaded: latents are cached; drawing brings it back."""
        if "vae" in self.__dict__:
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
        pipeline = self._pipeline()
        drawing = [self.unet, *self.encoders.values()]
        was_training = [part.training for part in drawing]
        for part in drawing:
            part.eval()
        images: list[Image.Image] = []
        batch = batch_for(resolution)
        mixed = torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None)
        try:
            for start in range(0, len(prompts), batch):
                part = slice(start, start + batch)
                # On the CPU, so that a seed means the same picture on every device.
                generators = [torch.Generator().manual_seed(seed) for seed in seeds[part]]
                with mixed:
                    latents = pipeline(
                        [self.spoken(prompt) for prompt in prompts[part]],
                        num_inference_steps=steps,
                        guidance_scale=guidance,
                        height=resolution,
                        width=resolution,
                        generator=generators,
                        output_type="latent",
                    ).images
                images += self.decode(latents)
        finally:
            for part, training in zip(drawing, was_training, strict=True):
                part.train(training)
        return images

    def _pipeline(self) -> Any:
        import diffusers

        pipeline: Any = getattr(diffusers, self.pipeline)(
            vae=self.vae.to(self.device),
            unet=self.unet,
            scheduler=self._sampler(),
            **self.encoders,
            **dict(zip(self.tokenizer_names, self.tokenizers, strict=True)),
            **self._pipeline_options(),
        )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def _pipeline_options(self) -> dict[str, Any]:
        return {}

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


def open_family(folder: Path, device: torch.device) -> Family:
    """The base in `folder`, as what it is. Raises BaseModelInvalid."""
    from dreambooth_trainer.sdxl import StableDiffusionXL
    from dreambooth_trainer.stable_diffusion import StableDiffusion

    kinds: dict[str, type[Family]] = {kind.name: kind for kind in (StableDiffusion, StableDiffusionXL)}
    return kinds[family_name(folder)](folder, device)


def _ids(tokenizer: Any, prompts: Sequence[str]) -> Tensor:
    return tokenizer(
        list(prompts), padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt"
    ).input_ids


def batch_for(resolution: int) -> int:
    """How many pictures are drawn in one batch: 32 small ones, 4 of 512 pixels, 1 of 1024."""
    return max(1, min(32, 4 * 512 * 512 // resolution**2))


def to_tensor(images: Sequence[Image.Image]) -> Tensor:
    """RGB pictures of one size as (N, 3, H, W) in [-1, 1]."""
    pixels = np.stack([np.asarray(image, dtype=np.float32) for image in images])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2) / 127.5 - 1
