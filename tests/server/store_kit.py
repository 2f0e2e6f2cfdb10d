"""Real S3 servers, each with an empty bucket."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import urllib3
from minio import Minio
from server_kit import free_port

ACCESS, SECRET, BUCKET = "dreambooth", "dreambooth-secret", "dreambooth"


@contextmanager
def running(server: str, program: Path, folder: Path) -> Iterator[Path]:
    """A folder like the mounted Secret of a store that runs until the block ends; `server`: minio or versitygw."""
    port = free_port()
    env = {**os.environ, "MINIO_ROOT_USER": ACCESS, "MINIO_ROOT_PASSWORD": SECRET}
    (folder / "data").mkdir()
    keys = {"endpoint": f"http://127.0.0.1:{port}", "region": "us-east-1", "accessKey": ACCESS, "secretKey": SECRET}
    (folder / "keys").mkdir()
    for name, value in {**keys, "bucket": BUCKET, "prefix": "", "ca.crt": ""}.items():
        (folder / "keys" / name).write_text(value)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(_command(server, program, folder / "data", port), stdout=log, stderr=log, env=env)
    try:
        _make_bucket(client(folder / "keys"))
        yield folder / "keys"
    finally:
        process.kill()
        process.wait()


def client(keys: Path) -> Minio:
    """A client of the store with these keys."""
    endpoint = (keys / "endpoint").read_text().removeprefix("http://")
    return Minio(endpoint, access_key=ACCESS, secret_key=SECRET, secure=False, region="us-east-1",
                 http_client=urllib3.PoolManager(retries=False))  # fmt: skip


def upload(keys: Path, folder: Path, prefix: str) -> None:
    """Put all files of `folder` below `prefix` in the bucket."""
    for path in folder.rglob("*"):
        if path.is_file():
            client(keys).fput_object(BUCKET, f"{prefix}/{path.relative_to(folder).as_posix()}", str(path))


def _command(server: str, program: Path, folder: Path, port: int) -> list[str]:
    if server == "minio":
        return [str(program), "server", str(folder), "--address", f"127.0.0.1:{port}", "--quiet"]
    return [str(program), "--port", f"127.0.0.1:{port}", "--access", ACCESS, "--secret", SECRET, "posix", str(folder)]


def _make_bucket(store: Minio) -> None:
    for _ in range(200):
        try:
            store.make_bucket(BUCKET)
            return
        except Exception:  # Whatever a server that is not up yet makes the client say.
            time.sleep(0.1)
    raise AssertionError("the S3 server did not come up")
