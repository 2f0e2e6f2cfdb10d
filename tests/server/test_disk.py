"""Room on a disk that several processes share."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest

from dreambooth_server.disk import alone, discard, hold, make_room, remove, used_now

HOLD = """
import sys
from pathlib import Path
from dreambooth_server.disk import hold
assert hold(Path(sys.argv[1])) is not None
print("held", flush=True)
sys.stdin.read()
"""


def kept(cache: Path, name: str, age: float, size: int = 100) -> Path:
    """A download that was used so many seconds ago."""
    folder = cache / name
    folder.mkdir(parents=True)
    (folder / "weights").write_bytes(b"x" * size)
    then = time.time() - age
    for path in (folder / "weights", folder):
        os.utime(path, (then, then))
    return folder


def names(cache: Path) -> set[str]:
    return {path.relative_to(cache).as_posix() for path in cache.glob("*/*/")}


@pytest.fixture
def other(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """Another process, which uses `models/a`."""
    folder = kept(tmp_path, "models/a", age=4000)
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    os.utime(folder, (1000, 1000))
    yield process
    process.kill()
    process.wait()


def test_what_was_used_longest_ago_goes_until_there_is_room(tmp_path: Path) -> None:
    for age, name in enumerate(("bases/a", "models/b", "bases/c", "models/d")):
        kept(tmp_path, name, age=5000 - age)
    used_now(tmp_path / "bases/a")

    def free(cache: Path) -> int:
        return 450 - sum(path.stat().st_size for path in cache.rglob("weights"))

    make_room(tmp_path, 50, free)
    assert names(tmp_path) == {"bases/a", "models/b", "bases/c", "models/d"}
    make_room(tmp_path, 250, free)
    assert names(tmp_path) == {"bases/a", "models/d"}
    # What was used just now may be being read.
    make_room(tmp_path, 10_000, free)
    assert names(tmp_path) == {"bases/a"}


def test_where_nothing_was_kept_there_is_nothing_to_do(tmp_path: Path) -> None:
    make_room(tmp_path / "none", 10**18)
    assert not (tmp_path / "none").exists()


def test_part_of_the_disk_is_left_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept(tmp_path, "models/one", age=4000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=1000, free=300))
    make_room(tmp_path, 150)
    assert names(tmp_path) == {"models/one"}
    make_room(tmp_path, 151)
    assert names(tmp_path) == set()


def test_what_another_process_uses_stays_as_long_as_that_lives(tmp_path: Path, other: "subprocess.Popen[str]") -> None:
    kept(tmp_path, "models/b", age=3000)
    make_room(tmp_path, 1, lambda cache: 0)
    assert names(tmp_path) == {"models/a"}
    assert (tmp_path / "models/a/weights").stat().st_size == 100
    other.kill()
    other.wait()
    make_room(tmp_path, 1, lambda cache: 0)
    assert names(tmp_path) == set()


def test_what_is_gone_or_going_cannot_be_held(tmp_path: Path) -> None:
    assert hold(tmp_path / "none") is None
    folder = kept(tmp_path, "models/a", age=4000)
    lock = hold(folder)
    assert lock is not None
    assert not remove(folder)
    # A reader that had opened the folder before it went holds nothing of the one that took its place.
    discard(folder, folder.stat().st_ino)
    kept(tmp_path, "models/a", age=0)
    assert remove(folder)
    os.close(lock)
    assert hold(folder) is None


def test_what_took_the_place_of_a_spoiled_folder_is_not_discarded(tmp_path: Path) -> None:
    folder = kept(tmp_path, "models/a", age=4000)
    spoiled = folder.stat().st_ino
    folder.rename(tmp_path / "aside")
    kept(tmp_path, "models/a", age=0)
    discard(folder, spoiled)
    assert folder.is_dir()
    discard(folder, folder.stat().st_ino)
    assert not folder.exists()


def test_downloads_that_nobody_finishes_go_and_others_stay(tmp_path: Path) -> None:
    left = kept(tmp_path, "models/.part-left", age=4000)
    kept(tmp_path, "models/.part-young", age=100)
    # Its folder is old, and somebody writes into it.
    kept(tmp_path, "bases/.part-written", age=4000)
    (tmp_path / "bases/.part-written/more").write_bytes(b"x")
    begun = kept(tmp_path, "bases/.part-begun", age=4000)
    lock = hold(begun)
    os.utime(begun / ".lock", (1000, 1000))
    os.utime(begun, (1000, 1000))
    make_room(tmp_path, 1, lambda cache: 0)
    assert not left.exists()
    assert names(tmp_path) == {"models/.part-young", "bases/.part-written", "bases/.part-begun"}
    assert lock is not None
    os.close(lock)


def test_two_processes_do_the_same_one_after_the_other(tmp_path: Path) -> None:
    script = "\n".join([
        "import sys, time",
        "from pathlib import Path",
        "from dreambooth_server.disk import alone",
        "with alone(Path(sys.argv[1]), 'x'):",
        "    begun = time.time(); time.sleep(0.3); print(begun, time.time())",
    ])  # fmt: skip
    command = [sys.executable, "-c", script, str(tmp_path / "cache")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    spans = sorted(tuple(map(float, process.communicate()[0].split())) for process in running)
    assert len(spans) == 3
    assert all(before[1] <= after[0] for before, after in pairwise(spans))
    with alone(tmp_path / "cache", "x"), alone(tmp_path / "cache", "y"):
        pass
