"""Artifacts and bases from real S3 servers."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import urllib3
from minio import Minio
from server_kit import Made, free_port, write_card

from dreambooth_api.reasons import Reason
from dreambooth_server.artifacts import LORA_WEIGHTS, fetch_artifact
from dreambooth_server.bases import fetch_base
from dreambooth_server.bucket import BucketSource, StoreKeys
from dreambooth_server.faults import LoadFault
from dreambooth_server.settings import Places, SubjectSource
from dreambooth_server.sources import SourceError

pytestmark = pytest.mark.cluster
ACCESS, SECRET, BUCKET = "dreambooth", "dreambooth-secret", "dreambooth"


def command(program: Path, server: str, folder: Path, port: int) -> list[str]:
    if server == "minio":
        return [str(program), "server", str(folder), "--address", f"127.0.0.1:{port}", "--quiet"]
    return [str(program), "--port", f"127.0.0.1:{port}", "--access", ACCESS, "--secret", SECRET, "posix", str(folder)]


@pytest.fixture(scope="module", params=["minio", "versitygw"])
def store(
    s3_programs: dict[str, Path], request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """A folder like the mounted Secret of a running store with an empty bucket."""
    port, folder = free_port(), tmp_path_factory.mktemp("s3")
    env = {**os.environ, "MINIO_ROOT_USER": ACCESS, "MINIO_ROOT_PASSWORD": SECRET}
    (folder / "data").mkdir()
    keys = {"endpoint": f"http://127.0.0.1:{port}", "region": "us-east-1", "accessKey": ACCESS, "secretKey": SECRET}
    (folder / "keys").mkdir()
    for name, value in {**keys, "bucket": BUCKET, "prefix": "", "ca.crt": ""}.items():
        (folder / "keys" / name).write_text(value)
    with (folder / "log").open("wb") as log:
        line = command(s3_programs[request.param], request.param, folder / "data", port)
        server = subprocess.Popen(line, stdout=log, stderr=log, env=env)
    try:
        _make_bucket(client(folder / "keys"))
        yield folder / "keys"
    finally:
        server.kill()
        server.wait()


def client(keys: Path) -> Minio:
    endpoint = (keys / "endpoint").read_text().removeprefix("http://")
    return Minio(endpoint, access_key=ACCESS, secret_key=SECRET, secure=False, region="us-east-1",
                 http_client=urllib3.PoolManager(retries=False))  # fmt: skip


def _make_bucket(store: Minio) -> None:
    for _ in range(200):
        try:
            store.make_bucket(BUCKET)
            return
        except Exception:  # Whatever a server that is not up yet makes the client say.
            time.sleep(0.1)
    raise AssertionError("the S3 server did not come up")


def upload(keys: Path, folder: Path, prefix: str) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            client(keys).fput_object(BUCKET, f"{prefix}/{path.relative_to(folder).as_posix()}", str(path))


def test_an_artifact_is_fetched_once_and_verified(store: Path, lora: Made, tmp_path: Path) -> None:
    upload(store, lora.folder, "models/demo/rusty/0123")
    places = Places(store=store, work=tmp_path)
    wanted = SubjectSource(f"s3://{BUCKET}/models/demo/rusty/0123", lora.digest)
    first = fetch_artifact(wanted, places)
    weights = first.folder / LORA_WEIGHTS
    stamp = weights.stat().st_mtime_ns
    # Without any keys: what is here is not asked for again.
    assert fetch_artifact(wanted, Places(store=tmp_path / "none", work=tmp_path)) == first
    assert weights.stat().st_mtime_ns == stamp
    weights.write_bytes(b"rotten")
    assert fetch_artifact(wanted, places) == first
    assert weights.read_bytes() == (lora.folder / LORA_WEIGHTS).read_bytes()


def test_a_base_is_fetched_and_verified(store: Path, base: Path, tmp_path: Path) -> None:
    upload(store, base, "examples/base")
    (tmp_path / "card").mkdir()
    reference = write_card(tmp_path / "card", base).base
    places = Places(store=store, work=tmp_path)
    fetched = fetch_base(reference, f"s3://{BUCKET}/examples/base/", places)
    assert (fetched / "model_index.json").is_file()
    assert fetch_base(reference, f"s3://{BUCKET}/examples/base", places) == fetched
    assert not list(fetched.parent.glob(".part-*"))


def test_what_is_not_there(store: Path, base: Path, tmp_path: Path) -> None:
    places = Places(store=store, work=tmp_path)
    for uri in (f"s3://{BUCKET}/nothing", "s3://no-such-bucket/x"):
        with pytest.raises(LoadFault) as fault:
            fetch_artifact(SubjectSource(uri), places)
        assert fault.value.reason is Reason.ARTIFACT_NOT_FOUND
        with pytest.raises(LoadFault) as fault:
            fetch_base(write_card(tmp_path, base).base, uri, places)
        assert fault.value.reason is Reason.BASE_MODEL_NOT_FOUND


def test_wrong_keys_and_a_store_that_is_away(store: Path, tmp_path: Path) -> None:
    keys = Path(shutil.copytree(store, tmp_path / "keys"))
    (keys / "secretKey").write_text("wrong-secret")
    with pytest.raises(LoadFault, match="refuses the keys") as fault:
        fetch_artifact(SubjectSource(f"s3://{BUCKET}/x"), Places(store=keys, work=tmp_path))
    assert fault.value.reason is Reason.STORE_UNAVAILABLE
    (keys / "endpoint").write_text(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(SourceError, match=r"127\.0\.0\.1"):
        BucketSource(StoreKeys.read(keys), BUCKET, "x", attempts=2).read("MANIFEST.json")
