"""What is read is what was written: sizes, hashes and digests, and no pickle."""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

from dreambooth_api.artifact import Manifest, content_digest
from dreambooth_server.sources import FolderSource

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_WEIGHTS_AND_CONFIGS = (".safetensors", ".json", ".txt")
BASE_SUFFIXES = (".json", ".txt", ".safetensors")
"""Of the files that make up a base: configs, vocabularies and safetensors."""
_BLOCK = 1 << 20


class Unverified(ValueError):
    """Files are not what they must be."""


def check_no_pickles(names: Iterable[str]) -> None:
    """Refuse pickles, which run code when they are loaded. Raises Unverified."""
    for name in names:
        if name.lower().endswith(_PICKLES):
            raise Unverified(f"{name} is a pickle: only safetensors are loaded")


def check_manifest(manifest: Manifest, digest: str | None) -> None:
    """Raises Unverified when `manifest` is unfit, or is not of the artifact `digest`."""
    check_no_pickles(manifest.files)
    if digest is not None and manifest.digest != digest:
        raise Unverified(f"the manifest is of {manifest.digest}, not of {digest}")


def sha256(path: Path) -> str:
    """SHA-256 of a file, hex."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            found.update(block)
    return found.hexdigest()


def check_files(folder: Path, manifest: Manifest, hashed: Callable[[Path], str] = sha256) -> None:
    """Compare every listed file with its size and SHA-256. Raises Unverified naming the first that differs."""
    for name, entry in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise Unverified(f"{name} is missing")
        if path.stat().st_size != entry.bytes:
            raise Unverified(f"{name} has {path.stat().st_size} bytes instead of {entry.bytes}")
        if hashed(path) != entry.sha256:
            raise Unverified(f"{name} differs from its SHA-256 in the manifest")


def check_nothing_else(names: Iterable[str], manifest: Manifest, known: Iterable[str]) -> None:
    """Refuse files that a loader might read though no hash vouches for them. Raises Unverified."""
    extra = set(names) - set(manifest.files) - set(known)
    check_no_pickles(extra)
    for name in sorted(extra):
        if name.endswith(_WEIGHTS_AND_CONFIGS):
            raise Unverified(f"{name} is not in the manifest")


def base_files(names: Iterable[str]) -> list[str]:
    """Those of `names` that make up a base, and its digest."""
    return [name for name in names if name.endswith(BASE_SUFFIXES) and not name.startswith(".")]


def base_digest(folder: Path, hashed: Callable[[Path], str] = sha256) -> str:
    """`sha256:<hex>` over the content of the base in `folder`. Raises NotThere."""
    return content_digest({name: hashed(folder / name) for name in base_files(FolderSource(folder).names())})
