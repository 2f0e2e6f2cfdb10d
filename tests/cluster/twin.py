"""A second subject without a second training: the trained one's artifact with weaker weights, another digest."""

import hashlib
import io
import json
from typing import Any

from minio import Minio
from safetensors.numpy import load, save

from dreambooth_api import names
from dreambooth_api.artifact import Manifest, ManifestEntry, short_digest


def put_twin(store: Minio, bucket: str, uri: str) -> dict[str, str]:
    """Stores the twin of the artifact at `uri`; returns what `spec.artifact` says of it."""
    prefix = uri.split(f"{bucket}/", 1)[1].rstrip("/")
    manifest = Manifest.model_validate(json.loads(_get(store, bucket, f"{prefix}/{names.MANIFEST}")))
    files = {path: _weaker(path, _get(store, bucket, f"{prefix}/{path}")) for path in manifest.files}
    entries = {
        path: ManifestEntry(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
        for path, content in files.items()
    }
    twin = Manifest(files=entries)
    folder = f"{prefix.rpartition('/')[0]}/{short_digest(twin.digest)}"
    files[names.MANIFEST] = json.dumps(twin.to_dict()).encode()  # last, as ever
    for path, content in files.items():
        store.put_object(bucket, f"{folder}/{path}", io.BytesIO(content), len(content))
    return {"uri": f"{uri.split(bucket, 1)[0]}{bucket}/{folder}", "digest": twin.digest}


def _get(store: Minio, bucket: str, key: str) -> bytes:
    answer: Any = store.get_object(bucket, key)
    try:
        return answer.read()
    finally:
        answer.close()
        answer.release_conn()


def _weaker(path: str, content: bytes) -> bytes:
    if not path.endswith(".safetensors"):
        return content
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return save({key: value * 0.7 for key, value in load(content).items()}, header.get("__metadata__"))
