import errno
import os
import time
from pathlib import Path

import pytest

from dreambooth_trainer.faults import StoreRefused, StoreUnavailable
from dreambooth_trainer.manifests import CorruptFolder, get_folder, get_manifest, put_folder
from dreambooth_trainer.store import FolderStore, Missing, S3Store, Store, s3_store


@pytest.fixture(
    params=[
        "folder",
        pytest.param("minio", marks=pytest.mark.cluster),
        pytest.param("versitygw", marks=pytest.mark.cluster),
    ]
)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """All kinds of store answer alike."""
    if request.param == "folder":
        return FolderStore(tmp_path / "store")
    return request.getfixturevalue(request.param).at(tmp_path.name)


def test_round_trip(store: Store, tmp_path: Path) -> None:
    store.write("a/b.txt", b"one")
    store.at("a").write("c.txt", b"two")
    (tmp_path / "source").write_bytes(b"three")
    store.upload("d", tmp_path / "source")
    assert store.keys() == ["a/b.txt", "a/c.txt", "d"]
    assert store.at("a").read("c.txt") == b"two"
    store.download("d", tmp_path / "new" / "target")
    assert (tmp_path / "new" / "target").read_bytes() == b"three"
    store.write("a/b.txt", b"other")
    assert store.read("a/b.txt") == b"other"
    store.delete(["a/b.txt", "never-there"])
    assert store.keys() == ["a/c.txt", "d"]


def test_a_prefix_is_a_folder_not_a_beginning(store: Store) -> None:
    store.write("step-1/x", b"1")
    store.write("step-10/x", b"10")
    assert store.at("step-1").keys() == ["x"]


def test_missing_keys(store: Store, tmp_path: Path) -> None:
    with pytest.raises(Missing):
        store.read("nothing")
    with pytest.raises(Missing):
        store.download("nothing", tmp_path / "x")
    assert store.at("nowhere").keys() == []


def test_folders_come_back_whole_and_verified(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "inner").mkdir(parents=True)
    (source / "a.bin").write_bytes(b"a" * 1000)
    (source / "inner" / "b.bin").write_bytes(b"b")
    manifest = put_folder(store, source)
    assert set(manifest.files) == {"a.bin", "inner/b.bin"}
    get_folder(store, tmp_path / "target")
    assert (tmp_path / "target" / "inner" / "b.bin").read_bytes() == b"b"


@pytest.mark.parametrize("harm", ["changed", "missing", "manifest cut off", "no manifest"])
def test_harm_is_seen(store: Store, tmp_path: Path, harm: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "a.bin").write_bytes(b"a" * 1000)
    put_folder(store, source)
    match harm:
        case "changed":
            store.write("a.bin", b"a" * 999 + b"b")
        case "missing":
            store.delete(["a.bin"])
        case "manifest cut off":
            store.write("MANIFEST.json", store.read("MANIFEST.json")[:20])
        case "no manifest":
            store.delete(["MANIFEST.json"])
            assert get_manifest(store) is None
    with pytest.raises(CorruptFolder):
        get_folder(store, tmp_path / "target")


def test_a_half_written_file_does_not_count(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.write("whole", b"1")
    (tmp_path / ".half.1234").write_bytes(b"2")
    assert store.keys() == ["whole"]


def test_a_full_or_forbidden_disk_is_an_unavailable_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"in the way")
    with pytest.raises(StoreUnavailable, match="cannot write"):
        FolderStore(tmp_path / "file").write("key", b"x")


def test_a_server_that_does_not_answer(free_port, capsys: pytest.CaptureFixture) -> None:
    store = s3_store(f"http://127.0.0.1:{free_port()}", "bucket", "key", "secret", region="us-east-1", patience=2)
    began = time.monotonic()
    with pytest.raises(StoreUnavailable, match="did not answer"):
        store.read("key")
    # Its own patience, not the default's five minutes.
    assert 1 < time.monotonic() - began < 60
    assert "trying again" in capsys.readouterr().out


def test_trouble_is_told_once_and_that_it_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, said, full = FolderStore(tmp_path), [], [OSError(errno.ENOSPC, "No space left on device")] * 2
    store.trouble.tell = said.append
    real = Path.write_bytes

    def write(path: Path, data: bytes) -> int:
        if full:
            raise full.pop()
        return real(path, data)

    monkeypatch.setattr(Path, "write_bytes", write)
    store.at("below").write("key", b"x")
    assert store.read("below/key") == b"x"
    assert [bool(message) for message in said] == [True, False]
    assert "fails for now" in said[0]


@pytest.mark.cluster
def test_refusals_are_not_retried(s3: S3Store, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(StoreRefused, match="NoSuchBucket"):
        s3.bucket_at("no-such-bucket", "").keys()
    endpoint = s3.client._base_url._url.netloc
    wrong = s3_store(f"http://{endpoint}", "bucket", "tests-access", "not-the-secret-key", patience=60)
    with pytest.raises(StoreRefused, match="SignatureDoesNotMatch"):
        wrong.read("key")
    assert "trying again" not in capsys.readouterr().out


@pytest.mark.cluster
def test_large_files_go_in_parts(s3: S3Store, tmp_path: Path) -> None:
    source = tmp_path / "large"
    source.write_bytes(os.urandom(1 << 20) * 24)
    s3.upload("large", source)
    s3.download("large", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == source.read_bytes()
