"""From a verified folder to networks on a device."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import diffusers
import torch
import transformers
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel

from dreambooth_api.reasons import Reason
from dreambooth_server.artifacts import UNET_FOLDER
from dreambooth_server.faults import LoadFault
from dreambooth_server.sampler import Parts
from dreambooth_server.settings import Precision


class Placement(NamedTuple):
    """Where weights live, and in what precision."""

    device: str
    dtype: torch.dtype


# Parameters; as the trainer has it, measured in docs/performance.md.
_SMALL = 20_000_000
_TYPES = {Precision.BF16: torch.bfloat16, Precision.FP16: torch.float16, Precision.FP32: torch.float32}


def best_placement(precision: Precision = Precision.AUTO) -> Placement:
    """A GPU in half precision when there is one, else the CPU in float32; `precision` may insist on another."""
    on_gpu = torch.cuda.is_available()
    dtype = torch.float32
    if on_gpu:
        dtype = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return Placement("cuda" if on_gpu else "cpu", _TYPES.get(precision, dtype))


def load_pipeline(base: Path, placement: Placement) -> Any:
    """diffusers' pipeline of the base in the folder `base`. Raises LoadFault."""
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    try:
        pipeline = _pipeline(base, placement.dtype)
        pipeline.to(placement.device)
    except torch.OutOfMemoryError as e:
        raise LoadFault(Reason.GPU_OUT_OF_MEMORY, f"{base} does not fit into the device's memory") from e
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, AttributeError) as e:
        raise LoadFault(Reason.BASE_MODEL_INVALID, f"{base} is not a Stable Diffusion: {first_line(e)}") from e
    return pipeline


def choose_threads(network: Any, placement: Placement) -> None:
    """On the CPU, small networks are computed by one thread: their operations take less than waking a second one.

    Holds for this thread and those that begin to compute later; the other cores answer requests.
    """
    if placement.device == "cpu" and sum(p.numel() for p in network.parameters()) < _SMALL:
        torch.set_num_threads(1)


def _pipeline(base: Path, dtype: torch.dtype) -> Any:
    """diffusers' pipeline of the base's family."""
    where: dict[str, Any] = {"local_files_only": True, "use_safetensors": True, "dtype": dtype}
    kind = json.loads((base / "model_index.json").read_text(encoding="utf-8")).get("_class_name")
    if kind == StableDiffusionXLPipeline.__name__:
        return StableDiffusionXLPipeline.from_pretrained(str(base), add_watermarker=False, **where)
    return StableDiffusionPipeline.from_pretrained(str(base), safety_checker=None, **where)


def parts_of(pipeline: Any) -> Parts:
    """The networks of a pipeline."""
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


def full_parts(base: Parts, folder: Path, pipeline: Any) -> Parts:
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


def first_line(error: BaseException) -> str:
    """What went wrong, short."""
    return str(error).strip().split("\n")[0][:500] or type(error).__name__
