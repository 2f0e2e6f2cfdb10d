"""What stands in the store: manifests, the card of a model, and the digest that names content."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated

from pydantic import AfterValidator, Field

from dreambooth_api.base import ApiModel
from dreambooth_api.job import Lora, MethodType
from dreambooth_api.names import MANIFEST, MODEL_CARD


def _inside(path: str) -> str:
    """`path`, if it stays in its folder: a manifest comes from a store, and is written below a folder of ours."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\\" in path or "\0" in path:
        raise ValueError(f"{path!r} is not a path inside the folder")
    return path


class ManifestEntry(ApiModel):
    """One file."""

    bytes: int = Field(ge=0, description="Size, bytes.")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the content, hex.")


class Manifest(ApiModel):
    """`MANIFEST.json`: written last; without it a folder of the store counts as empty."""

    files: dict[Annotated[str, AfterValidator(_inside)], ManifestEntry] = Field(
        description="Relative path → size and hash."
    )

    @property
    def digest(self) -> str:
        """`sha256:<hex>` over the files' paths and hashes."""
        return content_digest({path: entry.sha256 for path, entry in self.files.items()})

    @property
    def total_bytes(self) -> int:
        """Size of all files, bytes."""
        return sum(entry.bytes for entry in self.files.values())


class BaseReference(ApiModel):
    """The base that an artifact completes."""

    uri: str = Field(description="Where it was.")
    revision: str | None = Field(None, description="Its revision.")
    digest: str = Field(description="`sha256:<hex>` over its files; a server refuses another base.")


class ModelCard(ApiModel):
    """`model.json`: all that a server must know to draw the subject."""

    version: int = Field(1, ge=1, description="Version of this format.")
    name: str = Field(description="The subject's name: `publish.name`.")
    namespace: str = Field(description="The job's namespace.")
    job: str = Field(description="The job's name.")
    family: str = Field("sd", description="Model family: `sd` is Stable Diffusion 1.x and 2.x, `sdxl` XL.")
    base: BaseReference = Field(description="The base.")
    method: MethodType = Field(description="What was trained.")
    lora: Lora | None = Field(None, description="The adapters' settings, for `LoRA`.")
    train_text_encoder: bool = Field(description="Whether the text encoder was trained too.")
    learned_token: bool = Field(False, description="Whether the identifier has an embedding of its own.")
    identifier: str = Field(description="The word that means the subject.")
    class_name: str = Field(description="The noun of its class.")
    prompt: str = Field(description="The filled-in caption of its pictures.")
    resolution: int = Field(ge=8, description="Side of a picture, pixels.")
    steps: int = Field(25, ge=1, description="Denoising steps that suit it.")
    guidance_scale: float = Field(7.5, ge=0, description="Guidance that suits it.")
    trained_steps: int = Field(ge=0, description="Optimizer steps.")
    scores: dict[str, float] = Field({}, description="Measured scores.")
    run_id: str | None = Field(None, description="The MLflow run.")
    created: str = Field(description="When it was made, RFC 3339.")


def content_digest(hashes: Mapping[str, str]) -> str:
    """`sha256:<hex>` over sorted (path, SHA-256) pairs. Manifest and card are left out: they state the digest."""
    pairs = sorted((p, h) for p, h in hashes.items() if p not in (MANIFEST, MODEL_CARD))
    return "sha256:" + hashlib.sha256(json.dumps(pairs, separators=(",", ":")).encode()).hexdigest()


def short_digest(digest: str) -> str:
    """The 16 hex digits that name a folder."""
    return digest.removeprefix("sha256:")[:16]
