"""Room on the node's disk."""

import os
from pathlib import Path

from dreambooth_server.disk import make_room, used_now


def test_what_was_used_longest_ago_goes_until_there_is_room(tmp_path: Path) -> None:
    for age, name in enumerate("abc"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_bytes(b"x" * 100)
        os.utime(tmp_path / name, (1000 + age, 1000 + age))
    used_now(tmp_path / "a")

    def free(cache: Path) -> int:
        return 350 - sum(path.stat().st_size for path in cache.rglob("weights"))

    make_room(tmp_path, 50, free)
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b", "c"}
    make_room(tmp_path, 150, free)
    assert {path.name for path in tmp_path.iterdir()} == {"a", "c"}
    make_room(tmp_path, 10_000, free)
    assert not list(tmp_path.iterdir())


def test_where_nothing_was_kept_there_is_nothing_to_do(tmp_path: Path) -> None:
    make_room(tmp_path / "none", 10**18)
    (tmp_path / "one").mkdir()
    make_room(tmp_path, 0)
    assert (tmp_path / "one").is_dir()
