"""Objects of an S3 store, read with the keys of the Secret `dreambooth-store`. The only file that talks to a store."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import urllib3
from minio import Minio
from minio.error import MinioException, S3Error
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from dreambooth_server.sources import Listed, NotThere, SourceDenied, SourceError

_GONE = {"NoSuchKey", "NoSuchBucket", "NoSuchObject"}
_DENIED = {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"}


@dataclass(frozen=True)
class StoreKeys:
    """How to reach the store."""

    endpoint: str
    """Its URL."""
    region: str
    access_key: str
    secret_key: str
    ca_file: Path | None
    """Certificates to trust instead of the system's."""

    @classmethod
    def read(cls, folder: Path) -> "StoreKeys":
        """Read the Secret's files in `folder`. Raises SourceDenied when a needed one is missing."""

        def value(key: str, default: str | None = None) -> str:
            path = folder / key
            if path.is_file():
                return path.read_text().strip()
            if default is None:
                raise SourceDenied(f"{path} is missing: s3:// needs the keys of the Secret dreambooth-store")
            return default

        ca = folder / "ca.crt"
        return cls(
            endpoint=value("endpoint"),
            region=value("region", ""),
            access_key=value("accessKey"),
            secret_key=value("secretKey"),
            ca_file=ca if ca.is_file() and ca.stat().st_size else None,
        )


class BucketSource:
    """Objects below `s3://bucket/prefix`. `attempts` bounds the tries of each operation."""

    folder = None

    def __init__(self, keys: StoreKeys, bucket: str, prefix: str, attempts: int = 6) -> None:
        self._client = _connect(keys)
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._retrying = Retrying(
            stop=stop_after_attempt(attempts),
            wait=wait_exponential_jitter(initial=0.2, max=10),
            retry=retry_if_exception(lambda e: isinstance(e, SourceError) and not isinstance(e, SourceDenied)),
            reraise=True,
        )

    def files(self) -> dict[str, Listed]:
        return self._retrying.copy()(self._list)

    def read(self, name: str) -> bytes:
        return self._retrying.copy()(lambda: b"".join(self._chunks(name)))

    def fetch(self, name: str, target: Path) -> None:
        def write() -> None:
            with target.open("wb") as out:
                for chunk in self._chunks(name):
                    out.write(chunk)

        self._retrying.copy()(write)

    def _list(self) -> dict[str, Listed]:
        with _translated(f"s3://{self._bucket}"):
            found = self._client.list_objects(self._bucket, prefix=self._prefix, recursive=True)
            files = [o for o in found if o.object_name and not o.object_name.endswith("/")]
        return {str(o.object_name).removeprefix(self._prefix): Listed(o.size or 0, o.etag or "") for o in files}

    def _chunks(self, name: str) -> Iterator[bytes]:
        with _translated(f"s3://{self._bucket}/{self._prefix}{name}"):
            answer = self._client.get_object(self._bucket, self._prefix + name)
            try:
                yield from answer.stream(1 << 20)
            finally:
                answer.close()
                answer.release_conn()


def _connect(keys: StoreKeys) -> Minio:
    where = urlsplit(keys.endpoint)
    if where.scheme not in ("http", "https") or not where.netloc:
        raise SourceDenied(f"the store's endpoint {keys.endpoint!r} is not an http(s) URL")
    secure = where.scheme == "https"
    tls: dict[str, Any] = {"ssl_context": ssl.create_default_context(cafile=keys.ca_file)} if secure else {}
    pool = urllib3.PoolManager(timeout=urllib3.Timeout(connect=5, read=60), retries=False, **tls)
    return Minio(
        where.netloc,
        access_key=keys.access_key,
        secret_key=keys.secret_key,
        secure=secure,
        region=keys.region or None,
        http_client=pool,
    )


@contextmanager
def _translated(what: str) -> Iterator[None]:
    """S3's, HTTP's and the socket's errors in this package's words."""
    try:
        yield
    except S3Error as e:
        if e.code in _GONE:
            raise NotThere(f"{what}: {e.code}") from e
        if e.code in _DENIED:
            raise SourceDenied(f"{what}: the store refuses the keys ({e.code})") from e
        raise SourceError(f"{what}: {e.code}: {e.message}") from e
    except (MinioException, urllib3.exceptions.HTTPError, OSError, ValueError) as e:
        raise SourceError(f"{what}: {type(e).__name__}: {e}") from e
