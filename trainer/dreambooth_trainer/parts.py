"""A base's parts, each loaded when it is first asked for."""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch

from dreambooth_trainer.base import check_family
from dreambooth_trainer.faults import BaseModelInvalid


class Parts(ABC):
    """U-Net, VAE, text encoders, their tokenizers and a noise schedule, in a folder as diffusers saves them."""

    name: ClassVar[str]
    # Text encoders and their tokenizers, as subfolders of the base: the order is that of the conditioning.
    encoder_names: ClassVar[tuple[str, ...]]
    tokenizer_names: ClassVar[tuple[str, ...]]

    def __init__(self, folder: Path, device: torch.device) -> None:
        """The base in `folder`; each part is loaded, as float32, when it is first asked for.

        A step of training needs the U-Net alone once latents and captions are cached: a rank that never draws holds
        neither the VAE nor frozen text encoders (SDXL's are 3 GB) and does not wait for them. Raises BaseModelInvalid.
        """
        check_family(folder)
        self.folder, self.device = folder, device
        # The number format to draw in, where parts are kept in different ones; None: each part's own.
        self.autocast: torch.dtype | None = None
        # The identifier whose embedding is learned, once `learn` was called.
        self.identifier: str | None = None
        if self.schedule.config.prediction_type not in ("epsilon", "v_prediction"):
            raise BaseModelInvalid(f"baseModel: prediction type {self.schedule.config.prediction_type!r} is unknown")

    @property
    def networks(self) -> list[Any]:
        """The U-Net, and the text encoders if they were loaded."""
        return [self.unet, *self.__dict__.get("encoders", {}).values()]

    def load(self) -> None:
        """Load all parts now, so that a broken one is found at once. Raises BaseModelInvalid."""
        for part in ("unet", "encoders", "vae", "tokenizers"):
            getattr(self, part)

    @cached_property
    def schedule(self) -> Any:
        """The noise schedule."""
        from diffusers import DDPMScheduler

        with _readable():
            return DDPMScheduler.from_pretrained(self.folder, subfolder="scheduler")

    @cached_property
    def unet(self) -> Any:
        """The U-Net."""
        from diffusers import UNet2DConditionModel

        return self._model(UNet2DConditionModel, self.folder, subfolder="unet", torch_dtype=torch.float32)

    @cached_property
    def vae(self) -> Any:
        """The VAE, always in float32: the stock one of SDXL overflows in fp16, and its share of the time is small."""
        from diffusers import AutoencoderKL

        return self._model(AutoencoderKL, self.folder, subfolder="vae", torch_dtype=torch.float32)

    @cached_property
    def encoders(self) -> dict[str, Any]:
        """The text encoders by name; those that come late, to draw, in the number format that is drawn in."""
        number = self.autocast or torch.float32
        kinds = zip(self.encoder_names, self._encoder_kinds(), strict=True)
        return {name: self._model(kind, self.folder / name, dtype=number) for name, kind in kinds}

    @cached_property
    def tokenizers(self) -> list[Any]:
        """The text encoders' tokenizers."""
        from transformers import CLIPTokenizer

        with _readable():
            return [CLIPTokenizer.from_pretrained(self.folder / n, local_files_only=True) for n in self.tokenizer_names]

    def _model(self, kind: Any, folder: Path, **options: Any) -> Any:
        """A part with weights, frozen, on the device."""
        with _readable():
            model = kind.from_pretrained(folder, local_files_only=True, use_safetensors=True, **options)
            return model.to(self.device).requires_grad_(False).eval()

    @staticmethod
    @abstractmethod
    def _encoder_kinds() -> tuple[Any, ...]:
        """The classes of the text encoders."""


@contextlib.contextmanager
def _readable() -> Iterator[None]:
    """What a library says of files that it cannot load, as a fault of the base."""
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError) as e:
        raise BaseModelInvalid(f"baseModel: cannot be loaded: {str(e).splitlines()[0][:500]}") from e
