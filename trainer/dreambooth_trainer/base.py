"""A base's folder, looked at without torch: is it whole, of a known family, free of pickles; its digest and size."""

import json
from pathlib import Path
from typing import Any

from dreambooth_api.artifact import Manifest
from dreambooth_trainer.faults import BaseModelInvalid
from dreambooth_trainer.manifests import describe

PARTS = ("unet", "text_encoder", "vae", "tokenizer", "scheduler")
# diffusers' pipeline → family, and the parts that it needs.
FAMILIES = {
    "StableDiffusionPipeline": ("sd", PARTS),
    "StableDiffusionXLPipeline": ("sdxl", (*PARTS, "text_encoder_2", "tokenizer_2")),
}
MODEL_FILES = ("*.json", "*.txt", "*.safetensors")
PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")


def base_files(folder: Path) -> Manifest:
    """The base's files, those that a server loads too, each hashed: gigabytes are read."""
    files = {p.relative_to(folder).as_posix() for pattern in MODEL_FILES for p in folder.rglob(pattern)}
    return describe(folder, (name for name in files if not name.startswith(".")))


def base_digest(folder: Path) -> str:
    """`sha256:<hex>` over the base's files."""
    return base_files(folder).digest


def part_digest(files: Manifest, *parts: str) -> str:
    """`sha256:<hex>` over the files of some of a base's parts."""
    return Manifest(files={name: entry for name, entry in files.files.items() if name.split("/")[0] in parts}).digest


def check_base(folder: Path, parts: tuple[str, ...]) -> None:
    """Whether `parts` are there, as safetensors where they have weights. Raises BaseModelInvalid."""
    for part in parts:
        inner = folder / part
        if not inner.is_dir() or not any(inner.iterdir()):
            raise BaseModelInvalid(f"baseModel: part {part!r} is missing")
        if part == "scheduler" or part.startswith("tokenizer"):
            continue
        if not (inner / "config.json").is_file():
            raise BaseModelInvalid(f"baseModel: {part}/config.json is missing")
        if not any(inner.glob("*.safetensors")):
            pickles = sorted(p.name for p in inner.iterdir() if p.suffix in PICKLES)
            found = f"; {pickles[0]} is a pickle, which can run code: convert it" if pickles else ""
            raise BaseModelInvalid(f"baseModel: {part} has no safetensors weights{found}")


def check_family(folder: Path) -> None:
    """Whether the base is whole and of a family we know; needs no torch. Raises BaseModelInvalid."""
    check_base(folder, _family(folder)[1])


def family_name(folder: Path) -> str:
    """`sd` or `sdxl`. Raises BaseModelInvalid."""
    return _family(folder)[0]


def _family(folder: Path) -> tuple[str, tuple[str, ...]]:
    try:
        kind = json.loads((folder / "model_index.json").read_text(encoding="utf-8")).get("_class_name")
    except (OSError, ValueError) as e:
        raise BaseModelInvalid(f"baseModel: model_index.json cannot be read: {e}") from e
    if kind not in FAMILIES:
        raise BaseModelInvalid(f"baseModel: {kind} is not supported: Stable Diffusion 1.x, 2.x and XL are")
    return FAMILIES[kind]


def native_resolution(folder: Path) -> int:
    """Pixels of a side that the base was made for."""
    return int(_config(folder, "unet")["sample_size"]) * _shrinking(folder, "vae")


def size_step(folder: Path) -> int:
    """Pixels of which a side must be a multiple: by so much VAE and U-Net shrink a picture."""
    return _shrinking(folder, "vae") * _shrinking(folder, "unet")


def _shrinking(folder: Path, part: str) -> int:
    return 2 ** (len(_config(folder, part)["block_out_channels"]) - 1)


def _config(folder: Path, part: str) -> dict[str, Any]:
    return json.loads((folder / part / "config.json").read_text(encoding="utf-8"))
