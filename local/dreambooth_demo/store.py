"""The bundled store as this machine reaches it: puts the example's inputs there and lists what a job left."""

import base64
import io
from pathlib import Path

from minio import Minio

from dreambooth_api import names
from dreambooth_demo.access import service_url
from dreambooth_demo.kube import Kube
from dreambooth_demo.platform import NAMESPACE, RELEASE

EXAMPLES_PREFIX = "examples"


def open_store(kube: Kube, namespace: str) -> tuple[Minio, str]:
    """A client of the store that `namespace` is configured for, and its bucket."""
    secret = kube.get("secret", names.STORE_SECRET, namespace)
    if secret is None:
        raise LookupError(f"namespace {namespace} has no Secret {names.STORE_SECRET}")
    values = {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}
    host = service_url(kube, NAMESPACE, f"{RELEASE}-minio", 9000).removeprefix("http://")
    return Minio(host, values["accessKey"], values["secretKey"], secure=False), values["bucket"]


def upload_examples(client: Minio, bucket: str, examples: Path) -> int:
    """Upload the example base, its encoders and the robot's pictures; returns how many bytes."""
    total = 0
    for folder in ("base", "encoder", "encoder-dino", "robot/images"):
        for path in sorted((examples / folder).rglob("*")):
            if path.is_file():
                content = path.read_bytes()
                key = f"{EXAMPLES_PREFIX}/{path.relative_to(examples)}"
                client.put_object(bucket, key, io.BytesIO(content), len(content))
                total += len(content)
    return total
