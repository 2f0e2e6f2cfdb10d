"""The base model: found where the card or `--base` says, fetched, and verified against the card's digest."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dreambooth_api.artifact import BaseReference
from dreambooth_api.reasons import Reason
from dreambooth_api.uris import parse_uri
from dreambooth_server.faults import LoadFault
from dreambooth_server.kept import kept_digest, stored_base
from dreambooth_server.settings import Places
from dreambooth_server.sources import NotThere, SourceDenied, SourceError, open_source
from dreambooth_server.verify import BASE_SUFFIXES, base_digest


def fetch_base(reference: BaseReference, location: str | None, places: Places) -> Path:
    """The base's folder, in diffusers' layout. `location` overrides where it is, not what it is. Raises LoadFault."""
    uri = location or reference.uri
    with _faults(uri):
        folder, found = _bring(uri, reference.revision, places, reference.digest)
    if found != reference.digest:
        message = f"{uri} is another base ({found}) than the one that was personalised ({reference.digest})"
        raise LoadFault(Reason.BASE_MODEL_INVALID, message)
    return folder


def open_base(uri: str, revision: str | None, places: Places) -> tuple[Path, str]:
    """The folder and the digest of whatever base is at `uri`. Raises LoadFault."""
    with _faults(uri):
        return _bring(uri, revision, places, None)


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
    except OSError as e:
        raise LoadFault(Reason.STORE_UNAVAILABLE, f"{uri}: this node's disk: {e.strerror or e}") from e
    except ValueError as e:
        raise LoadFault(Reason.BASE_MODEL_INVALID, str(e)) from e


def _bring(uri: str, revision: str | None, places: Places, digest: str | None) -> tuple[Path, str]:
    if uri.startswith("hf://"):
        return _from_hub(uri, revision, places, digest)
    if uri.startswith("s3://"):
        return stored_base(uri, places, digest)
    folder = open_source(uri, places.store).folder
    if folder is None or not (folder / "model_index.json").is_file():
        raise NotThere(f"{folder} has no model_index.json")
    return folder, base_digest(folder)


def _from_hub(uri: str, revision: str | None, places: Places, digest: str | None) -> tuple[Path, str]:
    """A snapshot of the hub's, which its own cache keeps: in the folder that lasts, where there is one."""
    hub = places.cache / "hub" if places.lasts else None
    if hub and digest is not None:
        # What is here need not be asked for.
        with suppress(SourceError, NotThere):
            folder = _snapshot(uri, revision, hub, offline=True)
            if kept_digest(folder) == digest:
                return folder, digest
    folder = _snapshot(uri, revision, hub, offline=False)
    return folder, kept_digest(folder) if hub else base_digest(folder)


def _snapshot(uri: str, revision: str | None, hub: Path | None, offline: bool) -> Path:
    """The folder of a whole snapshot; `offline`: one that is here already. Raises NotThere, SourceError."""
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
        return Path(
            snapshot_download(
                repository,
                revision=revision,
                cache_dir=hub,
                allow_patterns=[f"*{suffix}" for suffix in BASE_SUFFIXES],
                token=os.environ.get("HF_TOKEN"),
                local_files_only=offline,
            )
        )
    except (RepositoryNotFoundError, RevisionNotFoundError) as e:
        raise NotThere(f"the hub has no {repository} at {revision or 'main'}, or the token may not see it") from e
    except LocalEntryNotFoundError as e:
        raise SourceError(f"the hub is not reached, and no copy of {repository} is here") from e
    except (HfHubHTTPError, OSError) as e:
        raise SourceError(f"the hub did not give {repository}: {e}") from e
