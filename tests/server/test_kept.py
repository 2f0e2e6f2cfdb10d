"""Bases of real S3 servers that are kept beyond the process that fetched them."""

import io
import logging
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from server_kit import free_port, write_card
from store_kit import BUCKET, client, upload

from dreambooth_api.reasons import Reason
from dreambooth_server import kept
from dreambooth_server.bases import fetch_base, open_base
from dreambooth_server.disk import make_room, remove
from dreambooth_server.faults import LoadFault
from dreambooth_server.settings import Places
from dreambooth_server.verify import base_digest

pytestmark = pytest.mark.cluster
OPEN = """
import sys
from pathlib import Path
from dreambooth_server import kept
from dreambooth_server.bases import open_base
from dreambooth_server.settings import Places
real = kept.download
kept.download = lambda *given: print("fetched", flush=True) or real(*given)
sys.stdin.read()
folder, digest = open_base(sys.argv[1], None, Places(store=Path(sys.argv[2]), lasting=Path(sys.argv[3])))
print(folder, digest)
"""


@pytest.fixture
def uri(store: Path, base: Path, request: pytest.FixtureRequest) -> str:
    """Of the example base in the store, for one test alone."""
    prefix = f"bases/{request.node.originalname}"
    upload(store, base, prefix)
    return f"s3://{BUCKET}/{prefix}"


@pytest.fixture
def places(store: Path, tmp_path: Path) -> Places:
    """A folder that outlives this process."""
    (tmp_path / "cache").mkdir()
    return Places(store=store, work=tmp_path / "work", lasting=tmp_path / "cache")


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One entry for each time that a base was fetched."""
    times: list[str] = []
    real = kept.download

    def counting(*given: Any) -> Path:
        times.append("fetched")
        return real(*given)

    monkeypatch.setattr(kept, "download", counting)
    return times


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that does not answer is tried again at once."""
    monkeypatch.setattr("tenacity.nap.time", SimpleNamespace(sleep=lambda seconds: None))


def away(places: Places, folder: Path, **changes: str) -> Places:
    """The same disk, and a store that does not answer or, with `changes`, whose keys are others."""
    keys = Path(shutil.copytree(places.store, folder / "keys"))
    for name, value in (changes or {"endpoint": f"http://127.0.0.1:{free_port()}"}).items():
        (keys / name).write_text(value)
    return Places(store=keys, work=places.work, lasting=places.lasting)


def overwrite(store: Path, uri: str) -> None:
    """Another scheduler's configuration in the place of the base's."""
    name = f"{uri.removeprefix(f's3://{BUCKET}/')}/scheduler/scheduler_config.json"
    found = client(store).get_object(BUCKET, name).read()
    changed = found.replace(b"v_prediction", b"epsilon")
    assert changed != found
    client(store).put_object(BUCKET, name, io.BytesIO(changed), len(changed))


def test_what_did_not_change_in_the_store_is_not_fetched_again(
    uri: str, base: Path, places: Places, fetched: list[str]
) -> None:
    folder, digest = open_base(uri, None, places)
    assert digest == base_digest(base)
    assert folder.parent == places.cache / "bases"
    assert open_base(uri, None, places) == (folder, digest)
    assert fetched == ["fetched"]


def test_a_base_that_was_overwritten_is_noticed(store: Path, uri: str, places: Places, fetched: list[str]) -> None:
    before = open_base(uri, None, places)
    overwrite(store, uri)
    after = open_base(uri, None, places)
    assert after[1] != before[1]
    assert b"epsilon" in (after[0] / "scheduler/scheduler_config.json").read_bytes()
    # Whoever draws with the earlier one goes on.
    assert base_digest(before[0]) == before[1]
    assert open_base(uri, None, places) == after
    assert fetched == ["fetched"] * 2


def test_one_folder_serves_all_that_name_the_same_base(
    store: Path, uri: str, base: Path, places: Places, tmp_path: Path, fetched: list[str]
) -> None:
    folder, digest = open_base(uri, None, places)
    upload(store, base, "bases/moved")
    moved = f"s3://{BUCKET}/bases/moved"
    assert open_base(moved, None, places) == (folder, digest)
    assert fetched == ["fetched"] * 2
    for again in (uri, moved):
        assert open_base(again, None, places) == (folder, digest)
    reference = write_card(tmp_path, base).base
    assert fetch_base(reference, uri, places) == folder
    assert fetched == ["fetched"] * 2


def test_by_its_digest_it_is_had_without_the_store(
    uri: str, base: Path, places: Places, tmp_path: Path, fetched: list[str]
) -> None:
    reference = write_card(tmp_path, base).base
    folder = fetch_base(reference, uri, places)
    without = Places(store=tmp_path / "no-keys", lasting=places.lasting)
    assert fetch_base(reference, uri, without) == folder
    other = reference.model_copy(update={"digest": "sha256:" + "1" * 64})
    with pytest.raises(LoadFault, match="is another base"):
        fetch_base(other, uri, places)
    assert fetch_base(reference, uri, without) == folder


def test_while_the_store_is_away_the_copy_will_do(
    uri: str, places: Places, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(LoadFault) as fault:
        open_base(uri, None, away(places, tmp_path / "first"))
    assert fault.value.reason is Reason.STORE_UNAVAILABLE
    found = open_base(uri, None, places)
    with caplog.at_level(logging.WARNING):
        assert open_base(uri, None, away(places, tmp_path / "second")) == found
    assert "starting with the copy that is kept here" in caplog.text
    assert found[1] in caplog.text
    # It is a copy of that URI, and of no other.
    with pytest.raises(LoadFault):
        open_base(f"{uri}-other", None, away(places, tmp_path / "third"))


def test_a_store_that_answers_is_believed(store: Path, uri: str, places: Places, tmp_path: Path) -> None:
    """Keys that were taken away, or a base that was deleted, are no store that is away."""
    open_base(uri, None, places)
    with pytest.raises(LoadFault, match="refuses the keys"):
        open_base(uri, None, away(places, tmp_path, secretKey="wrong-secret"))
    for found in client(store).list_objects(BUCKET, uri.removeprefix(f"s3://{BUCKET}/"), recursive=True):
        client(store).remove_object(BUCKET, str(found.object_name))
    with pytest.raises(LoadFault) as fault:
        open_base(uri, None, places)
    assert fault.value.reason is Reason.BASE_MODEL_NOT_FOUND


def a_byte(folder: Path) -> None:
    path = next((folder / "unet").glob("*.safetensors"))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def a_file(folder: Path) -> None:
    (folder / "model_index.json").unlink()


@pytest.mark.parametrize("spoil", [a_byte, a_file])
def test_a_spoiled_copy_is_fetched_anew(
    uri: str, base: Path, places: Places, tmp_path: Path, fetched: list[str], spoil: Callable[[Path], None]
) -> None:
    found = open_base(uri, None, places)
    spoil(found[0])
    assert open_base(uri, None, places) == found
    reference = write_card(tmp_path, base).base
    spoil(found[0])
    assert fetch_base(reference, uri, places) == found[0]
    assert base_digest(found[0]) == base_digest(base)
    spoil(found[0])
    with pytest.raises(LoadFault):
        open_base(uri, None, away(places, tmp_path))
    assert fetched == ["fetched"] * 3


def test_it_stays_as_long_as_it_is_used(uri: str, places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = open_base(uri, None, places)
    monkeypatch.setattr("dreambooth_server.disk._RECENT", -1.0)
    make_room(places.cache, 1, lambda cache: 0)
    assert folder.is_dir()
    assert not remove(folder)


@pytest.mark.parametrize("spoilt", [False, True])
def test_processes_that_begin_at_once_fetch_it_once(uri: str, base: Path, places: Places, spoilt: bool) -> None:
    if spoilt:
        a_byte(open_base(uri, None, places)[0])
    command = [sys.executable, "-c", OPEN, uri, str(places.store), str(places.lasting)]
    running = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    for process in running:  # all have begun: now they go
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None
    said = "".join(process.communicate()[0] for process in running).splitlines()
    digest = base_digest(base)
    folder = places.cache / "bases" / digest.removeprefix("sha256:")[:16]
    assert sorted(said) == sorted(["fetched", *[f"{folder} {digest}"] * 3])
    assert [path.name for path in folder.parent.iterdir() if path.is_dir()] == [folder.name]
