"""Downloads that several processes make at once, and that may be killed."""

import subprocess
import sys
from pathlib import Path

import pytest

from dreambooth_server.download import download
from dreambooth_server.sources import FolderSource, NotThere

ROUNDS = 30
FETCH = f"""
import sys
from pathlib import Path
from dreambooth_server.download import download
from dreambooth_server.sources import FolderSource
source, cache = FolderSource(Path(sys.argv[1])), Path(sys.argv[2])
sys.stdin.read()
for turn in range({ROUNDS}):
    folder = download(source, source.names(), cache, lambda part: str(turn))
    for name in source.names():
        assert (folder / name).read_bytes() == source.read(name)
"""


@pytest.fixture
def source(tmp_path: Path) -> FolderSource:
    (tmp_path / "source/unet").mkdir(parents=True)
    for name in ("model_index.json", "unet/weights.safetensors"):
        (tmp_path / "source" / name).write_bytes(name.encode() * 1000)
    return FolderSource(tmp_path / "source")


def test_it_is_named_by_its_content_and_belongs_to_everybody(source: FolderSource, tmp_path: Path) -> None:
    seen = []

    def verify(part: Path) -> str:
        seen.append((part.name, FolderSource(part).read("unet/weights.safetensors")))
        return "abc"

    folder = download(source, source.names(), tmp_path / "cache", verify)
    assert folder == tmp_path / "cache/abc"
    assert seen[0][0].startswith(".part-")
    assert seen[0][1] == source.read("unet/weights.safetensors")
    assert folder.stat().st_mode & 0o777 == 0o755
    assert set(source.names()) <= set(FolderSource(folder).names())


def test_what_is_there_already_stays(source: FolderSource, tmp_path: Path) -> None:
    first = download(source, source.names(), tmp_path / "cache", lambda part: "abc")
    inode = first.stat().st_ino
    assert download(source, source.names(), tmp_path / "cache", lambda part: "abc") == first
    assert first.stat().st_ino == inode
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["abc"]


def test_what_fails_leaves_nothing(source: FolderSource, tmp_path: Path) -> None:
    def refuse(part: Path) -> str:
        raise ValueError("spoiled")

    with pytest.raises(ValueError, match="spoiled"):
        download(source, source.names(), tmp_path / "cache", refuse)
    with pytest.raises(NotThere):
        download(source, [*source.names(), "nothing"], tmp_path / "cache", lambda part: "abc")
    assert list((tmp_path / "cache").iterdir()) == []


def test_processes_that_fetch_the_same_at_once_all_have_it(source: FolderSource, tmp_path: Path) -> None:
    command = [sys.executable, "-c", FETCH, str(source.folder), str(tmp_path / "cache")]
    running = [subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    for process in running:  # all have begun: now they go
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None
    ends = [(process.communicate()[1], process.returncode) for process in running]
    assert ends == [("", 0)] * 4
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {str(turn) for turn in range(ROUNDS)}
