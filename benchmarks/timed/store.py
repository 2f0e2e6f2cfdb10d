"""A real store for `benchmarks/serving.py`: MinIO on this machine, as `local/` compiles it."""

import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from minio import Minio


def unused_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextlib.contextmanager
def store(work: Path, subjects: Path) -> Iterator[Path]:
    """The keys of a running MinIO that holds the subjects."""
    port, keys = unused_port(), work / "keys"
    program = Path.home() / ".cache/dreambooth/bin/minio"
    (work / "data").mkdir()
    keys.mkdir()
    secrets = {"endpoint": f"http://127.0.0.1:{port}", "accessKey": "benchmark", "secretKey": "benchmark-secret"}
    for name, value in {**secrets, "region": "us-east-1"}.items():
        (keys / name).write_text(value)
    env = {**os.environ, "MINIO_ROOT_USER": secrets["accessKey"], "MINIO_ROOT_PASSWORD": secrets["secretKey"]}
    line = [str(program), "server", "--quiet", "--address", f"127.0.0.1:{port}", str(work / "data")]
    with (work / "minio.log").open("wb") as log:
        server = subprocess.Popen(line, env=env, stdout=log, stderr=log)
    client = Minio(f"127.0.0.1:{port}", "benchmark", "benchmark-secret", secure=False, region="us-east-1")
    try:
        client.make_bucket("models")
        for path in (path for path in subjects.rglob("*") if path.is_file()):
            client.fput_object("models", str(path.relative_to(subjects)), str(path))
        yield keys
    finally:
        server.kill()
        server.wait()
