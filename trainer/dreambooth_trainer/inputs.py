"""From a URI to a folder on this machine: bases, encoders and pictures.

`s3://` through the store's server and keys, `hf://` through the hub, `pvc://` and `configMap://` where the pod has them
mounted; a mirror (of `dreambooth run`) goes before all. Fetching is done once per machine, whoever comes first.
"""

import contextlib
import fcntl
import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from dreambooth_api.uris import Uri, mounted_path, parse_uri
from dreambooth_trainer.base import MODEL_FILES, PICKLES
from dreambooth_trainer.context import Context
from dreambooth_trainer.faults import (
    BaseModelNotFound,
    DatasetNotFound,
    SpecFault,
    StoreRefused,
    TrainerFault,
)
from dreambooth_trainer.pictures import is_dataset_name
from dreambooth_trainer.store import S3Store


def fetch_pictures(ctx: Context) -> Path:
    """The folder with the subject's pictures. Raises DatasetNotFound."""
    uri = ctx.spec.subject.images.uri
    folder = _folder(ctx, uri, None, is_dataset_name, DatasetNotFound, "subject.images")
    if not folder.is_dir():
        raise DatasetNotFound(f"subject.images: there is no folder {uri}")
    return folder


def fetch_base(ctx: Context) -> Path:
    """The folder with the base, whose pickles are left out. Raises BaseModelNotFound."""
    base = ctx.spec.base_model
    folder = _folder(ctx, base.uri, base.revision, _is_model_file, BaseModelNotFound, "baseModel")
    if not (folder / "model_index.json").is_file():
        raise BaseModelNotFound(f"baseModel: {base.uri} has no model_index.json: not a model in diffusers' layout")
    return folder


def fetch_encoder(ctx: Context, uri: str, field: str) -> Path:
    """The folder with a scoring encoder. Raises SpecFault."""
    folder = _folder(ctx, uri, None, _is_model_file, SpecFault, field)
    if not (folder / "config.json").is_file():
        raise SpecFault(f"{field}: {uri} has no config.json: not a model of transformers")
    return folder


def _is_model_file(name: str) -> bool:
    return any(Path(name).match(pattern) for pattern in MODEL_FILES) or name.endswith(PICKLES)


def _folder(
    ctx: Context,
    text: str,
    revision: str | None,
    wanted: Callable[[str], bool],
    fault: type[TrainerFault],
    field: str,
) -> Path:
    """The folder that the URI `text` means, fetched if need be; `fault` when there is nothing."""
    try:
        uri = parse_uri(text)
    except ValueError as e:
        raise SpecFault(f"{field}: {e}") from e
    mirrored = ctx.mirror.find(text) if ctx.mirror else None
    if mirrored is not None:
        if not mirrored.exists():
            raise fault(f"{field}: {text} is mirrored by {mirrored}, which does not exist")
        return mirrored
    if mounted := mounted_path(uri):
        if not Path(mounted).exists():
            raise fault(f"{field}: there is nothing at {text}")
        return Path(mounted)
    target = ctx.work / "inputs" / hashlib.sha256(f"{text}@{revision}".encode()).hexdigest()[:16]
    with _once(target) as partial:
        if partial is not None:
            if uri.scheme == "s3":
                _from_s3(ctx, uri, partial, wanted, fault, field)
            elif uri.scheme == "hf":
                _from_hub(uri, revision, partial, fault, field)
            else:
                raise SpecFault(f"{field}: {text}: unknown scheme {uri.scheme}://")
    return target


@contextlib.contextmanager
def _once(target: Path) -> Iterator[Path | None]:
    """A folder to fill, which becomes `target`; None when `target` is there. One process of the machine at a time."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / f"{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.exists():
            yield None
            return
        partial = target.with_name(f"{target.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        yield partial
        partial.rename(target)


def _from_s3(
    ctx: Context, uri: Uri, target: Path, wanted: Callable[[str], bool], fault: type[TrainerFault], field: str
) -> None:
    if not isinstance(ctx.store, S3Store):
        raise fault(
            f"{field}: {uri} needs an S3 server; without one, map it to a folder with the annotation "
            "dreambooth.dev/local-mirror"
        )
    source = ctx.store.bucket_at(uri.authority, uri.path)
    try:
        keys = [key for key in source.keys() if wanted(key.rsplit("/", 1)[-1])]  # noqa: SIM118 a Store is no dict
    except StoreRefused as e:
        if "NoSuchBucket" in str(e):
            raise fault(f"{field}: there is no bucket {uri.authority!r}") from e
        raise
    if not keys:
        raise fault(f"{field}: there is nothing that fits at {uri}")
    for key in keys:
        if key.endswith(PICKLES):
            (target / key).parent.mkdir(parents=True, exist_ok=True)
            # Named, so that the check can say what is wrong; never downloaded.
            (target / key).touch()
        else:
            source.download(key, target / key)


def _from_hub(uri: Uri, revision: str | None, target: Path, fault: type[TrainerFault], field: str) -> None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        folder = snapshot_download(f"{uri.authority}/{uri.path}", revision=revision, allow_patterns=list(MODEL_FILES))
    except RepositoryNotFoundError as e:
        raise fault(f"{field}: the hub has no {uri}, or it is gated: set secretRef") from e
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as e:
        raise fault(f"{field}: cannot fetch {uri} revision {revision or 'main'}: {e}") from e
    shutil.copytree(folder, target, dirs_exist_ok=True)
