"""A subject's artifact: fetched, verified, and its card."""

import re
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from dreambooth_api.artifact import Manifest, ModelCard, short_digest
from dreambooth_api.job import MethodType
from dreambooth_api.names import MANIFEST, MODEL_CARD, TOKEN_WEIGHTS
from dreambooth_api.reasons import Reason
from dreambooth_server.disk import MODELS, discard, make_room, used_now
from dreambooth_server.download import download
from dreambooth_server.faults import LoadFault
from dreambooth_server.record import Record
from dreambooth_server.settings import BASE_MODEL, Places, SubjectSource
from dreambooth_server.sources import FolderSource, NotThere, Source, SourceError, open_source
from dreambooth_server.verify import Unverified, check_files, check_manifest, check_nothing_else, sha256

LORA_WEIGHTS = "pytorch_lora_weights.safetensors"
UNET_FOLDER = "unet"
_FAMILIES = ("sd", "sdxl")
_FIRST_HALF = re.compile(r"lora_A\.|down\.weight$")


@dataclass(frozen=True)
class Artifact:
    """A verified subject on this machine's disk."""

    name: str
    """What `model` calls it."""
    folder: Path
    digest: str
    """`sha256:<hex>`."""
    card: ModelCard


def kept_artifact(wanted: SubjectSource, places: Places) -> Artifact | None:
    """What an earlier fetch of the very digest left on this disk, verified anew; None: nothing, or nothing good."""
    if wanted.digest is None:
        return None
    folder = places.cache / MODELS / short_digest(wanted.digest)
    used_now(folder)  # first: what was used just now is not deleted
    inode = folder.stat().st_ino if folder.is_dir() else 0
    try:
        source = FolderSource(folder)
        manifest = Manifest.model_validate_json(source.read(MANIFEST))
        check_manifest(manifest, wanted.digest)
        card = _check(folder, manifest, kept=True)
    except (OSError, NotThere, SourceError, ValueError):
        discard(folder, inode)
        return None
    return Artifact(wanted.name or card.name, folder, manifest.digest, card)


def fetch_artifact(wanted: SubjectSource, places: Places) -> Artifact:
    """Bring an artifact here and verify it; the store is not asked for what is here. Raises LoadFault."""
    if (kept := kept_artifact(wanted, places)) is not None:
        return kept
    try:
        source = _find(wanted.uri, places)
        manifest = Manifest.model_validate_json(source.read(MANIFEST))
        check_manifest(manifest, wanted.digest)
        folder = source.folder or _download(source, manifest, places.cache)
        card = _check(folder, manifest, kept=source.folder is None)
    except NotThere as e:
        raise LoadFault(Reason.ARTIFACT_NOT_FOUND, f"{wanted.uri}: no artifact there: {e}") from e
    except SourceError as e:
        raise LoadFault(Reason.STORE_UNAVAILABLE, f"{wanted.uri}: {e}") from e
    except OSError as e:
        raise LoadFault(Reason.STORE_UNAVAILABLE, f"{wanted.uri}: this node's disk: {e.strerror or e}") from e
    except ValidationError as e:
        fault = e.errors()[0]
        where = ".".join(str(part) for part in fault["loc"])
        raise LoadFault(Reason.ARTIFACT_INVALID, f"{wanted.uri}: {e.title} {where}: {fault['msg']}") from e
    except (Unverified, ValueError) as e:
        raise LoadFault(Reason.ARTIFACT_INVALID, f"{wanted.uri}: {e}") from e
    name = wanted.name or card.name
    if name == BASE_MODEL:
        raise LoadFault(Reason.ARTIFACT_INVALID, f"{wanted.uri}: no subject may be named {BASE_MODEL!r}")
    return Artifact(name, folder, manifest.digest, card)


def rank_of(artifact: Artifact) -> int:
    """The highest rank in the artifact's adapter, from the file's header. Raises LoadFault."""
    try:
        with safe_open(artifact.folder / LORA_WEIGHTS, "pt") as weights:
            # Each pair's first half has its rank as the first of its dimensions.
            halves = [key for key in weights.keys() if _FIRST_HALF.search(key)]  # noqa: SIM118  (a file, not a dict)
            return max((weights.get_slice(key).get_shape()[0] for key in halves), default=1)
    except (SafetensorError, OSError) as e:
        raise LoadFault(Reason.ARTIFACT_INVALID, f"{artifact.name}: {LORA_WEIGHTS}: {e}") from e


def _find(uri: str, places: Places) -> Source:
    """The source at `uri`; a folder that `dreambooth run` wrote has the artifact in `artifact`."""
    source = open_source(uri, places.store)
    if source.folder is not None and not (source.folder / MANIFEST).exists():
        inner = source.folder / "artifact"
        if (inner / MANIFEST).exists():
            return FolderSource(inner)
    return source


def _download(source: Source, manifest: Manifest, cache: Path) -> Path:
    """Files of the store, by digest."""

    def verify(folder: Path) -> str:
        _check(folder, manifest, kept=True)
        return short_digest(manifest.digest)

    make_room(cache, manifest.total_bytes)
    return download(source, {*manifest.files, MODEL_CARD, MANIFEST}, cache / MODELS, verify)


def _check(folder: Path, manifest: Manifest, kept: bool) -> ModelCard:
    """The card of an artifact that is what its manifest says; what is `kept` here has a record. Raises NotThere,
    SourceError, ValueError."""
    source, record = FolderSource(folder), Record(folder)
    check_nothing_else(source.names(), manifest, (MANIFEST, MODEL_CARD))
    check_files(folder, manifest, record.sha256 if kept else sha256)
    if kept:
        record.save()
    card = ModelCard.model_validate_json(source.read(MODEL_CARD))
    _check_card(card, manifest)
    return card


def _check_card(card: ModelCard, manifest: Manifest) -> None:
    if card.family not in _FAMILIES:
        raise Unverified(f"family {card.family!r} cannot be drawn by this release: it knows {', '.join(_FAMILIES)}")
    needed = [LORA_WEIGHTS if card.method is MethodType.LORA else f"{UNET_FOLDER}/config.json"]
    if card.learned_token:
        needed.append(TOKEN_WEIGHTS)
    for name in needed:
        if name not in manifest.files:
            raise Unverified(f"{card.method} needs {name}, which the manifest does not list")
