"""Artifacts and bases from real S3 servers."""

import shutil
from pathlib import Path

import pytest
from server_kit import Made, free_port, write_card
from store_kit import BUCKET, upload

from dreambooth_api.reasons import Reason
from dreambooth_server.artifacts import LORA_WEIGHTS, fetch_artifact
from dreambooth_server.bases import fetch_base
from dreambooth_server.bucket import BucketSource, StoreKeys
from dreambooth_server.faults import LoadFault
from dreambooth_server.settings import Places, SubjectSource
from dreambooth_server.sources import SourceError

pytestmark = pytest.mark.cluster


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
