"""One interface to what is kept: S3 (any server, through the `minio` client) or a folder.

A key is a relative path. Writing a key is atomic: it is there as a whole or not at all. Passing faults are retried
with growing pauses for `patience` seconds; then StoreUnavailable. A refusal (keys, bucket) is StoreRefused at once.
"""

import contextlib
import io
import os
import shutil
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol, TypeVar

from dreambooth_trainer.faults import StoreRefused, StoreUnavailable
from dreambooth_trainer.patience import is_disk_full, patiently

T = TypeVar("T")
_REFUSALS = (
    "AccessDenied",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "NoSuchBucket",
    "InvalidBucketName",
    "AuthorizationHeaderMalformed",
    "PermanentRedirect",
)


class Missing(KeyError):
    """There is nothing under that key."""


def _nobody(message: str | None) -> None:
    """Hears nothing."""


class Trouble:
    """Whether a store answers: `tell` hears it once when it does not, and None once it does again."""

    def __init__(self) -> None:
        self.tell: Callable[[str | None], None] = _nobody
        self._told = False

    def away(self, message: str) -> None:
        """An operation failed and is tried again."""
        if not self._told:
            self._told = True
            self.tell(message)

    def back(self) -> None:
        """An operation was carried out."""
        if self._told:
            self._told = False
            self.tell(None)


class Store(Protocol):
    """Bytes by key."""

    uri: str
    # How long passing faults are borne, seconds.
    patience: float
    # Shared by all stores below one.
    trouble: Trouble

    def keys(self) -> list[str]:
        """All keys, sorted."""
        ...

    def read(self, key: str) -> bytes:
        """The content. Raises Missing."""
        ...

    def write(self, key: str, data: bytes) -> None:
        """Set the content."""
        ...

    def download(self, key: str, target: Path) -> None:
        """Copy the content to a file, whose folder is made. Raises Missing."""
        ...

    def upload(self, key: str, source: Path) -> None:
        """Set the content from a file."""
        ...

    def delete(self, keys: Iterable[str]) -> None:
        """Remove keys; absent ones are no fault."""
        ...

    def at(self, prefix: str) -> "Store":
        """The store below `prefix`."""
        ...


class FolderStore:
    """A store in a folder of this machine, or of a mounted volume."""

    def __init__(self, root: Path, patience: float = 60.0, trouble: Trouble | None = None) -> None:
        """`patience`: how long a full disk is waited for, seconds."""
        self.root, self.patience, self.trouble = root.absolute(), patience, trouble or Trouble()
        self.uri = f"file://{self.root}"

    def keys(self) -> list[str]:
        """All keys, sorted; half-written files have hidden names and do not count."""
        files = (path.relative_to(self.root) for path in self.root.rglob("*") if path.is_file())
        return sorted(path.as_posix() for path in files if not any(part.startswith(".") for part in path.parts))

    def read(self, key: str) -> bytes:
        """The content. Raises Missing."""
        try:
            return (self.root / key).read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as e:
            raise Missing(key) from e

    def write(self, key: str, data: bytes) -> None:
        """Set the content."""
        self._replace(key, lambda temporary: temporary.write_bytes(data))

    def download(self, key: str, target: Path) -> None:
        """Copy the content to a file."""
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(self.root / key, target)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as e:
            raise Missing(key) from e

    def upload(self, key: str, source: Path) -> None:
        """Set the content from a file."""
        self._replace(key, lambda temporary: shutil.copyfile(source, temporary))

    def delete(self, keys: Iterable[str]) -> None:
        """Remove keys, and folders that became empty."""
        for key in keys:
            path = self.root / key
            path.unlink(missing_ok=True)
            for parent in path.parents:
                if parent == self.root or not parent.is_dir() or any(parent.iterdir()):
                    break
                parent.rmdir()

    def at(self, prefix: str) -> "FolderStore":
        """The store below `prefix`."""
        return FolderStore(self.root / prefix, self.patience, self.trouble)

    def _replace(self, key: str, fill: Callable[[Path], object]) -> None:
        path = self.root / key
        try:
            borne(self, lambda: _fill(path, fill), is_disk_full, f"cannot write {path}")
        except OSError as e:
            raise StoreUnavailable(f"cannot write {path}: {e.strerror or e}") from e


def _fill(path: Path, fill: Callable[[Path], object]) -> None:
    """Make `path` whole or not at all: written beside it, then renamed."""
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fill(temporary)
        # A rename may reach the disk before the content it names.
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


class S3Store:
    """A store in a bucket."""

    def __init__(
        self, client, bucket: str, prefix: str = "", patience: float = 300.0, trouble: Trouble | None = None
    ) -> None:
        """`client`: a `minio.Minio`; `patience`: how long passing faults are retried, seconds."""
        self.client, self.bucket, self.prefix, self.patience = client, bucket, prefix.strip("/"), patience
        self.trouble = trouble or Trouble()
        self.uri = f"s3://{bucket}" + (f"/{self.prefix}" if self.prefix else "")

    def keys(self) -> list[str]:
        """All keys, sorted."""
        start = f"{self.prefix}/" if self.prefix else ""
        objects = self._call(lambda: list(self.client.list_objects(self.bucket, prefix=start, recursive=True)))
        return sorted(o.object_name.removeprefix(start) for o in objects if not o.is_dir)

    def read(self, key: str) -> bytes:
        """The content. Raises Missing."""

        def get() -> bytes:
            response = self.client.get_object(self.bucket, self._key(key))
            try:
                return response.read()
            finally:
                response.close()
                response.release_conn()

        return self._call(get, key)

    def write(self, key: str, data: bytes) -> None:
        """Set the content."""
        self._call(lambda: self.client.put_object(self.bucket, self._key(key), io.BytesIO(data), len(data)), key)

    def download(self, key: str, target: Path) -> None:
        """Copy the content to a file."""
        target.parent.mkdir(parents=True, exist_ok=True)
        self._call(lambda: self.client.fget_object(self.bucket, self._key(key), str(target)), key)

    def upload(self, key: str, source: Path) -> None:
        """Set the content from a file; large ones in parts."""
        self._call(lambda: self.client.fput_object(self.bucket, self._key(key), str(source)), key)

    def delete(self, keys: Iterable[str]) -> None:
        """Remove keys."""
        for key in keys:
            self._call(lambda key=key: self.client.remove_object(self.bucket, self._key(key)), key)  # type: ignore[misc]

    def at(self, prefix: str) -> "S3Store":
        """The store below `prefix`."""
        inner = "/".join(part for part in (self.prefix, prefix.strip("/")) if part)
        return S3Store(self.client, self.bucket, inner, self.patience, self.trouble)

    def bucket_at(self, bucket: str, prefix: str) -> "S3Store":
        """Another bucket of the same server, with the same keys."""
        return S3Store(self.client, bucket, prefix, self.patience, self.trouble)

    def _key(self, key: str) -> str:
        return f"{self.prefix}/{key}" if self.prefix else key

    def _call(self, operation: Callable[[], T], key: str = "") -> T:
        """`operation`, retried while its fault may pass."""
        try:
            return borne(self, operation, _may_pass, f"the store at {self.uri}")
        except Exception as e:
            code = getattr(e, "code", "")
            if code in ("NoSuchKey", "NoSuchObject"):
                raise Missing(key) from e
            if code in _REFUSALS:
                raise StoreRefused(f"the store refused {self.uri}: {code}: {getattr(e, 'message', e)}") from e
            if _may_pass(e):
                raise StoreUnavailable(f"the store at {self.uri} did not answer for {self.patience:.0f} s: {e}") from e
            raise


def borne(store: Store, operation: Callable[[], T], may_pass: Callable[[BaseException], bool], what: str) -> T:
    """`operation`, tried again while its fault may pass, as long as the store's patience lasts."""

    def say(message: str) -> None:
        print(message, flush=True)
        store.trouble.away(f"{what} fails for now; it is tried again for up to {store.patience:.0f} s")

    result = patiently(operation, may_pass, store.patience, what, say)
    store.trouble.back()
    return result


def _may_pass(error: BaseException) -> bool:
    """Whether a retry may mend `error`: the network, a 5xx, a throttled request."""
    import urllib3
    from minio.error import InvalidResponseError, S3Error, ServerError

    if isinstance(error, S3Error):
        return error.response.status >= 500 or error.code in ("SlowDown", "RequestTimeout", "TooManyRequests")
    return isinstance(error, urllib3.exceptions.HTTPError | ServerError | InvalidResponseError | ConnectionError)


def s3_store(
    endpoint: str,
    bucket: str,
    access_key: str,
    secret_key: str,
    *,
    prefix: str = "",
    region: str | None = None,
    ca: Path | None = None,
    patience: float = 300.0,
    timeout: float = 10.0,
) -> S3Store:
    """The store in `bucket` of the server at `endpoint` (a URL); `ca`: a file with the server's authority.

    `timeout`: how long a connection, and each piece of an answer, is waited for, seconds; `patience`: how long an
    operation is tried, seconds.
    """
    import urllib3
    from minio import Minio

    scheme, _, host = endpoint.rpartition("://")
    http = urllib3.PoolManager(
        timeout=timeout,
        retries=False,  # `patiently` retries, and says so.
        maxsize=8,
        cert_reqs="CERT_REQUIRED",
        ca_certs=str(ca) if ca else None,
    )
    client = Minio(
        endpoint=host.rstrip("/"),
        access_key=access_key,
        secret_key=secret_key,
        secure=scheme != "http",
        region=region or None,
        http_client=http,
    )
    return S3Store(client, bucket, prefix, patience)
