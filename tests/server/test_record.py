"""Hashes of big files are remembered as long as nothing about the file has changed."""

import os
import shutil
import time
from pathlib import Path

import pytest

from dreambooth_server import record
from dreambooth_server.record import Record
from dreambooth_server.verify import sha256

NAME = "unet/weights.safetensors"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With a file that counts as big; a sparse one of 64 MiB would do as well, and take longer."""
    monkeypatch.setattr(record, "BIG", 1000)
    (tmp_path / "base/unet").mkdir(parents=True)
    (tmp_path / "base" / NAME).write_bytes(b"x" * 1000)
    (tmp_path / "base/config.json").write_bytes(b"{}")
    return tmp_path / "base"


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were read to be hashed."""
    names: list[str] = []

    def counting(path: Path) -> str:
        names.append(path.name)
        return sha256(path)

    monkeypatch.setattr(record, "sha256", counting)
    return names


def again(folder: Path) -> str:
    """What a new process makes of the big file."""
    found = Record(folder)
    digest = found.sha256(folder / NAME)
    assert found.sha256(folder / "config.json") == sha256(folder / "config.json")
    found.save()
    return digest


def test_a_big_file_is_hashed_once_and_a_small_one_each_time(folder: Path, hashed: list[str]) -> None:
    assert again(folder) == again(folder) == again(folder) == sha256(folder / NAME)
    assert hashed.count("weights.safetensors") == 1
    assert hashed.count("config.json") == 3


def test_a_folder_may_be_renamed(folder: Path, hashed: list[str]) -> None:
    again(folder)
    again(folder.rename(folder.with_name("renamed")))
    assert hashed.count("weights.safetensors") == 1


@pytest.mark.parametrize("change", ["content", "same size and time", "replaced", "copied"])
def test_what_changed_is_hashed_anew(folder: Path, hashed: list[str], change: str) -> None:
    again(folder)
    path = folder / NAME
    before = path.stat()
    if change == "content":
        path.write_bytes(b"y" * 1001)
    elif change == "same size and time":
        with path.open("r+b") as file:
            file.write(b"y")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    elif change == "replaced":
        (folder / "other").write_bytes(b"y" * 1000)
        os.utime(folder / "other", ns=(before.st_atime_ns, before.st_mtime_ns))
        (folder / "other").rename(path)
    else:
        folder = Path(shutil.copytree(folder, folder.with_name("copy")))
        path = folder / NAME
    assert again(folder) == sha256(path)
    assert hashed.count("weights.safetensors") == 2
    assert again(folder) == sha256(path)
    assert hashed.count("weights.safetensors") == 2


def test_after_a_week_it_is_hashed_again(folder: Path, hashed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    again(folder)
    now = time.time()
    for days, times in ((6, 1), (8, 2), (14, 2), (16, 3)):
        monkeypatch.setattr(record.time, "time", lambda then=now + days * 86_400: then)
        again(folder)
        assert hashed.count("weights.safetensors") == times, days


def test_a_record_that_is_no_record_is_none(folder: Path, hashed: list[str]) -> None:
    again(folder)
    (path,) = (p for p in folder.iterdir() if p.name == ".record")
    for spoiled in (b"", b"\xff", b"[]", b'{"hashes": {"unet/weights.safetensors": {"sha256": 1}}}', b"{"):
        path.write_bytes(spoiled)
        assert again(folder) == sha256(folder / NAME)
    assert hashed.count("weights.safetensors") == 6


def test_origins_are_kept_and_nothing_else_is_left(folder: Path) -> None:
    first = Record(folder)
    first.origins["s3://bucket/base"] = "1"
    first.save()
    second = Record(folder)
    second.origins["s3://bucket/copy"] = "2"
    second.sha256(folder / NAME)
    second.save()
    assert Record(folder).origins == {"s3://bucket/base": "1", "s3://bucket/copy": "2"}
    assert {path.name for path in folder.iterdir()} == {"unet", "config.json", ".record"}


def test_where_nothing_can_be_written_nothing_is_remembered(tmp_path: Path) -> None:
    gone = Record(tmp_path / "gone")
    gone.origins["s3://bucket/base"] = "1"
    gone.save()
    assert not (tmp_path / "gone").exists()
