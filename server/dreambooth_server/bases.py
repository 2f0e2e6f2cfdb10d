"""The base model: found where the card or `--base` says, fetched, and verified against the card's digest."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dreambooth_api.artifact import BaseReference, short_digest
from dreambooth_api.reasons import Reason
from dreambooth_api.uris import parse_uri
from dreambooth_server.download import download
from dreambooth_server.faults import LoadFault
from dreambooth_server.settings import Places
from dreambooth_server.sources import FolderSource, NotThere, Source, SourceDenied, SourceError, open_source
from dreambooth_server.verify import digest_of

_SUFFIXES = (".json", ".txt", ".safetensors")


def fetch_base(reference: BaseReference, location: str | None, places: Places) -> Path:
    """The base's folder, in diffusers' layout. `location` overrides where it is, not what it is. Raises LoadFault."""
    uri = location or reference.uri
    with _faults(uri):
        folder = _bring(uri, reference.revision, places, reference.digest)
        found = _digest(folder)
    if found != reference.digest:
        message = f"{uri} is another base ({found}) than the one that was personalised ({reference.digest})"
        raise LoadFault(Reason.BASE_MODEL_INVALID, message)
    return folder


def open_base(uri: str, revision: str | None, places: Places) -> tuple[Path, str]:
    """The folder and the digest of whatever base is at `uri`. Raises LoadFault."""
    with _faults(uri):
        folder = _bring(uri, revision, places, None)
        return folder, _digest(folder)


@contextmanager
def _faults(uri: str) -> Iterator[None]:
    """Errors of reading a base, as LoadFaults."""
    try:
        yield
    except NotThere as e:
        raise LoadFault(Reason.BASE_MODEL_NOT_FOUND, f"{uri}: no base model there: {e}") from e
    except SourceDenied as e:
        raise LoadFault(Reason.STORE_UNAVAILABLE, f"{uri}: {e}; or say where the base is with --base") from e
    except SourceError as e:
        raise LoadFault(Reason.STORE_UNAVAILABLE, f"{uri}: {e}") from e
    except ValueError as e:
        raise LoadFault(Reason.BASE_MODEL_INVALID, str(e)) from e


def base_files(names: list[str]) -> list[str]:
    """Those of `names` that make up a base, and its digest: configs, vocabularies and safetensors."""
    return [name for name in names if name.endswith(_SUFFIXES) and not name.startswith(".")]


def _bring(uri: str, revision: str | None, places: Places, digest: str | None) -> Path:
    if uri.startswith("hf://"):
        return _from_hub(uri, revision, os.environ.get("HF_TOKEN"))
    source = open_source(uri, places.store)
    if source.folder is not None:
        if not (source.folder / "model_index.json").is_file():
            raise NotThere(f"{source.folder} has no model_index.json")
        return source.folder
    return _download(source, uri, digest, places.cache / "bases")


def _download(source: Source, uri: str, digest: str | None, cache: Path) -> Path:
    """The store's files, kept by digest, or anew from `uri` when any will do; the caller verifies what comes out."""
    target = cache / short_digest(digest or hashlib.sha256(uri.encode()).hexdigest())
    if digest is not None and target.is_dir() and _digest(target) == digest:
        return target
    if not (names := base_files(source.names())):
        raise NotThere("no files")
    return download(source, names, target, lambda folder: None)


def _digest(folder: Path) -> str:
    return digest_of(folder, base_files(FolderSource(folder).names()))


def _from_hub(uri: str, revision: str | None, token: str | None) -> Path:
    """A snapshot of the hub's; the hub's own cache keeps it."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    parsed = parse_uri(uri)
    repository = f"{parsed.authority}/{parsed.path}"
    try:
        patterns = [f"*{suffix}" for suffix in _SUFFIXES]
        return Path(snapshot_download(repository, revision=revision, allow_patterns=patterns, token=token))
    except (RepositoryNotFoundError, RevisionNotFoundError) as e:
        raise NotThere(f"the hub has no {repository} at {revision or 'main'}, or the token may not see it") from e
    except LocalEntryNotFoundError as e:
        raise SourceError(f"the hub is not reached, and no copy of {repository} is here") from e
    except (HfHubHTTPError, OSError) as e:
        raise SourceError(f"the hub did not give {repository}: {e}") from e
