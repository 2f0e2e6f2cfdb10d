"""Folders in the store: files first, `MANIFEST.json` last, verified on reading."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from dreambooth_api.artifact import Manifest, ManifestEntry
from dreambooth_api.names import MANIFEST
from dreambooth_trainer.store import Missing, Store


class CorruptFolder(Exception):
    """A folder of the store is not what its manifest says."""


def entry_of(data: bytes) -> ManifestEntry:
    """Size and hash of `data`."""
    return ManifestEntry(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


def entry_of_file(path: Path) -> ManifestEntry:
    """Size and hash of a file, read in pieces."""
    with path.open("rb") as file:
        sha = hashlib.file_digest(file, "sha256").hexdigest()
    return ManifestEntry(bytes=path.stat().st_size, sha256=sha)


def describe(folder: Path, files: Iterable[str] | None = None) -> Manifest:
    """The manifest of `folder`, or of the named files in it."""
    if files is None:
        files = (p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)
    return Manifest(files={name: entry_of_file(folder / name) for name in sorted(files)})


def dump(manifest: Manifest) -> bytes:
    """A manifest's bytes: the same for the same content."""
    return (json.dumps(manifest.to_dict(), indent=1, sort_keys=True) + "\n").encode()


def put_folder(store: Store, folder: Path) -> Manifest:
    """Upload `folder`, then its manifest."""
    manifest = describe(folder)
    for name in manifest.files:
        store.upload(name, folder / name)
    store.write(MANIFEST, dump(manifest))
    return manifest


def get_manifest(store: Store) -> Manifest | None:
    """The manifest; None when there is none, and so nothing. Raises CorruptFolder when it cannot be read."""
    try:
        return Manifest.model_validate_json(store.read(MANIFEST))
    except Missing:
        return None
    except ValueError as e:
        raise CorruptFolder(f"{store.uri}/{MANIFEST} cannot be read") from e


def get_folder(store: Store, target: Path) -> Manifest:
    """Download what the manifest names and verify it. Raises CorruptFolder."""
    manifest = get_manifest(store)
    if manifest is None:
        raise CorruptFolder(f"{store.uri} has no {MANIFEST}")
    for name, entry in manifest.files.items():
        get_file(store, name, entry, target / name)
    return manifest


def get_file(store: Store, name: str, entry: ManifestEntry, target: Path) -> None:
    """Download one file of a manifest and verify it. Raises CorruptFolder."""
    try:
        store.download(name, target)
    except Missing as e:
        raise CorruptFolder(f"{store.uri}/{name} is missing") from e
    if entry_of_file(target) != entry:
        raise CorruptFolder(f"{store.uri}/{name} is not what its manifest says")
