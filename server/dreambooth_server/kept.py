"""Bases of a store, which are kept on this disk by their digest.

Where the digest is known the store is not asked for a base that is here; where any base will do, the store's list of
files tells whether what is there is still what was fetched.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from dreambooth_api.artifact import short_digest
from dreambooth_server.disk import BASES, alone, discard, hold, make_room, used_now
from dreambooth_server.download import download
from dreambooth_server.record import Record
from dreambooth_server.settings import Places
from dreambooth_server.sources import Listed, NotThere, Source, SourceDenied, SourceError, open_source
from dreambooth_server.verify import base_digest, base_files

log = logging.getLogger(__name__)
# How often a store is tried when there is something to start with if it is away.
_FEW = 2
Base = tuple[Path, str]
"""A folder in diffusers' layout, and its digest."""


def stored_base(uri: str, places: Places, digest: str | None) -> Base:
    """The base that is kept, if it is the one with `digest`, or, without that, the one that is at `uri`; else what is
    at `uri`, fetched by one process while others wait for it. It stays on the disk as long as this process lives.

    Whether what was fetched has the digest, the caller compares. Raises NotThere, SourceError, OSError.
    """
    if found := _kept(uri, places, digest):
        return found
    with alone(places.cache / BASES, hashlib.sha256(uri.encode()).hexdigest()[:16]):
        return _kept(uri, places, digest) or _fetch(uri, places)


def kept_digest(folder: Path) -> str:
    """The digest of a base that is kept: its big files are not hashed each time."""
    record = Record(folder)
    digest = base_digest(folder, record.sha256)
    record.save()
    return digest


def _kept(uri: str, places: Places, digest: str | None) -> Base | None:
    if digest is not None:
        found = _open(places.cache / BASES / short_digest(digest))
        return found if found and found[1] == digest else None
    copies = dict(_copies(uri, places.cache / BASES))
    try:
        source = open_source(uri, places.store, _FEW) if copies else open_source(uri, places.store)
        now = _version(_files(source))
    except SourceDenied:
        raise
    except SourceError as e:
        if (found := _first(copies)) is None:
            raise
        log.warning("%s: %s: starting with the copy that is kept here (%s)", uri, e, found[1])
        return found
    return _first(folder for folder, version in copies.items() if version == now)


def _fetch(uri: str, places: Places) -> Base:
    source = open_source(uri, places.store)
    files = _files(source)
    make_room(places.cache, sum(file.bytes for file in files.values()))
    folder = download(source, files, places.cache / BASES, lambda part: short_digest(kept_digest(part)))
    record = Record(folder)
    record.origins[uri] = _version(files)
    record.save()
    if (found := _open(folder)) is None:
        raise SourceError(f"{folder} was taken away at once: is the disk full?")
    return found


def _copies(uri: str, bases: Path) -> Iterator[tuple[Path, str]]:
    """Folders with what once was at `uri`, and its version; the one that was used last first."""
    folders = []
    for folder in (folder for folder in bases.glob("*/") if not folder.name.startswith(".")):
        with suppress(OSError):  # deleted meanwhile
            folders.append((folder.stat().st_mtime, folder))
    for _, folder in sorted(folders, reverse=True):
        if version := Record(folder).origins.get(uri):
            yield folder, version


def _first(folders: Iterable[Path]) -> Base | None:
    """The first of them that is good."""
    return next(filter(None, map(_open, folders)), None)


def _open(folder: Path) -> Base | None:
    """A kept base, from now on held; None when it is not there, or is spoiled."""
    if (lock := hold(folder)) is None:
        return None
    used_now(folder)
    inode, digest = 0, ""
    with suppress(OSError, NotThere):  # deleted meanwhile, as another process found it spoiled; or not to be read
        inode = folder.stat().st_ino
        digest = kept_digest(folder)
    if short_digest(digest) == folder.name:
        return folder, digest
    log.warning("%s is not what was written there: it is deleted", folder)
    os.close(lock)
    discard(folder, inode)
    return None


def _files(source: Source) -> dict[str, Listed]:
    """The base's files in a store. Raises SourceError, NotThere."""
    listed = source.files()
    if not (names := base_files(listed)):
        raise NotThere("no files")
    return {name: listed[name] for name in names}


def _version(files: Mapping[str, Listed]) -> str:
    """Differs when a store's files do, as far as their list tells."""
    listed = sorted((name, file.bytes, file.version) for name, file in files.items())
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()
