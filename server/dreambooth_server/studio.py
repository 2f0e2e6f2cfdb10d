"""The engine of one machine: a base and its subjects in memory, one pipeline, adapters switched between requests."""

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import diffusers
import torch
import transformers
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from PIL import Image

from dreambooth_api.job import MethodType
from dreambooth_api.reasons import Reason
from dreambooth_server.artifacts import LORA_WEIGHTS, UNET_FOLDER, Artifact
from dreambooth_server.drawing import Drawing, Refused
from dreambooth_server.engine import Abilities
from dreambooth_server.faults import LoadFault
from dreambooth_server.sampler import Parts, sample
from dreambooth_server.settings import BASE_MODEL
from dreambooth_server.token import add_token


@dataclass(frozen=True)
class Variant:
    """What one model draws with."""

    parts: Parts
    adapter: str | None
    """The LoRA adapter to switch on; None: all off."""


class Placement(NamedTuple):
    """Where weights live, and in what precision."""

    device: str
    dtype: torch.dtype


class Studio:
    """Implements `engine.Engine`. Not thread-safe but for what its docstrings say."""

    def __init__(self, pipeline: Any, artifacts: Mapping[str, Artifact]) -> None:
        """`pipeline`: the plain base, of diffusers. Raises LoadFault when weights do not fit it."""
        self.artifacts = artifacts
        self._pipeline = pipeline
        self._variants: dict[str, Variant] = {}
        base = _parts(pipeline)
        for index, artifact in enumerate(artifacts.values()):
            self._variants[artifact.name] = self._load(base, artifact, f"subject_{index}")
        self._variants[BASE_MODEL] = Variant(base, None)
        self._adapted = any(v.adapter for v in self._variants.values())
        # A copy for counting: the setting of padding and truncation by another thread would reach the drawing.
        self._counter = copy.deepcopy(base.tokenizer)
        tokenizer = base.tokenizer
        self.abilities = Abilities(
            resolution=base.unet.config.sample_size * base.scale,
            multiple=max(8, base.scale),
            prompt_tokens=tokenizer.model_max_length - tokenizer.num_special_tokens_to_add(),
            device=base.device.type,
        )

    def count_tokens(self, prompt: str) -> int:
        """Tokens of `prompt`. May be called from any thread."""
        return len(self._counter(prompt, add_special_tokens=False, truncation=False, verbose=False).input_ids)

    def draw(self, drawings: Sequence[Drawing], stop: Callable[[], bool] = lambda: False) -> list[Image.Image]:
        """The pictures in the order of `drawings`: those of one shape in one batch. Raises Refused, Cancelled."""
        pictures: dict[int, Image.Image] = {}
        for shape in dict.fromkeys(d.shape for d in drawings):
            places = [i for i, d in enumerate(drawings) if d.shape == shape]
            parts = self._switch(drawings[places[0]].model)
            try:
                drawn = sample(parts, [drawings[i] for i in places], stop)
            except torch.OutOfMemoryError as e:
                torch.cuda.empty_cache()
                raise Refused("the device has too little memory for this: ask for fewer or smaller pictures") from e
            pictures.update(zip(places, drawn, strict=True))
        return [pictures[i] for i in range(len(drawings))]

    def _switch(self, model: str) -> Parts:
        """The parts of `model`, with its adapter on and all others off."""
        variant = self._variants[model]
        if variant.adapter is not None:
            self._pipeline.enable_lora()
            self._pipeline.set_adapters([variant.adapter])
        elif self._adapted:
            self._pipeline.disable_lora()
        return variant.parts

    def _load(self, base: Parts, artifact: Artifact, adapter: str) -> Variant:
        try:
            if artifact.card.method is MethodType.LORA:
                self._load_adapter(artifact.folder, adapter)
                parts = base
            else:
                parts, adapter = _full(base, artifact.folder, self._pipeline), ""
            if artifact.card.learned_token:
                parts = add_token(parts, artifact, f"<{artifact.digest}>")
            return Variant(parts, adapter or None)
        except (RuntimeError, ValueError, KeyError, OSError) as e:
            message = f"{artifact.name}: its weights do not fit the base: {_first_line(e)}"
            raise LoadFault(Reason.ARTIFACT_INVALID, message) from e

    def _load_adapter(self, folder: Path, adapter: str) -> None:
        self._pipeline.load_lora_weights(
            str(folder), weight_name=LORA_WEIGHTS, adapter_name=adapter, local_files_only=True, use_safetensors=True
        )
        # diffusers only warns when no key of the file belongs to the model.
        if not any(adapter in names for names in self._pipeline.get_list_adapters().values()):
            raise ValueError(f"{LORA_WEIGHTS} holds no adapter of this model")


def open_studio(base: Path, artifacts: Mapping[str, Artifact], placement: Placement | None = None) -> Studio:
    """Load the base in the folder `base` and the subjects on it; by default where it is fastest. Raises LoadFault."""
    device, dtype = placement or best_placement()
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    try:
        pipeline = _pipeline(base, dtype)
        pipeline.to(device)
    except torch.OutOfMemoryError as e:
        raise LoadFault(Reason.GPU_OUT_OF_MEMORY, f"{base} does not fit into the device's memory") from e
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, AttributeError) as e:
        raise LoadFault(Reason.BASE_MODEL_INVALID, f"{base} is not a Stable Diffusion: {_first_line(e)}") from e
    return Studio(pipeline, artifacts)


def best_placement() -> Placement:
    """A GPU in half precision when there is one, else the CPU in float32."""
    if not torch.cuda.is_available():
        return Placement("cpu", torch.float32)
    return Placement("cuda", torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16)


def _pipeline(base: Path, dtype: torch.dtype) -> Any:
    """diffusers' pipeline of the base's family."""
    where: dict[str, Any] = {"local_files_only": True, "use_safetensors": True, "dtype": dtype}
    kind = json.loads((base / "model_index.json").read_text(encoding="utf-8")).get("_class_name")
    if kind == StableDiffusionXLPipeline.__name__:
        return StableDiffusionXLPipeline.from_pretrained(str(base), add_watermarker=False, **where)
    return StableDiffusionPipeline.from_pretrained(str(base), safety_checker=None, **where)


def _parts(pipeline: Any) -> Parts:
    # The VAE overflows in fp16 (diffusers' `force_upcast`), and its share of the time is small.
    vae = pipeline.vae.float() if pipeline.vae.config.force_upcast else pipeline.vae
    second = getattr(pipeline, "text_encoder_2", None)
    return Parts(
        pipeline.tokenizer,
        pipeline.text_encoder.eval(),
        pipeline.unet.eval(),
        vae.eval(),
        dict(pipeline.scheduler.config),
        getattr(pipeline, "tokenizer_2", None),
        second.eval() if second is not None else None,
        bool(pipeline.config.get("force_zeros_for_empty_prompt", False)),
    )


def _full(base: Parts, folder: Path, pipeline: Any) -> Parts:
    """The subject's own U-Net and, where they were trained, text encoders; the rest is the base's."""
    where: dict[str, Any] = {"local_files_only": True, "use_safetensors": True}
    unet: Any = UNet2DConditionModel.from_pretrained(str(folder / UNET_FOLDER), torch_dtype=base.unet.dtype, **where)
    if unet.config.cross_attention_dim != base.unet.config.cross_attention_dim:
        raise ValueError("the U-Net reads words of another width than the base's text encoder gives")
    own = {"unet": unet}
    for name in ("text_encoder", "text_encoder_2"):
        if (folder / name).is_dir():
            kind = type(getattr(pipeline, name))
            own[name] = kind.from_pretrained(str(folder / name), dtype=base.unet.dtype, **where)
    return replace(base, **{name: part.to(base.device).eval() for name, part in own.items()})


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0][:500] or type(error).__name__
