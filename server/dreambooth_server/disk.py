"""Room on the node's disk for one more download: what was used longest ago goes."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

# Of the whole disk, left to others: a node whose disk is full evicts its pods.
_SPARE = 0.05


def used_now(folder: Path) -> None:
    """Note that `folder` was used."""
    os.utime(folder)


def make_room(cache: Path, needed: int, free: Callable[[Path], int] | None = None) -> None:
    """Delete folders of `cache`, those used longest ago first, until `needed` bytes fit with some to spare.

    `free` says how many bytes of the disk may be used. Where nothing is left to delete, the download will fail.
    """
    if not cache.is_dir():
        return
    free = free or _free
    kept = [path for path in cache.iterdir() if not path.name.startswith(".")]
    for folder in sorted(kept, key=lambda path: path.stat().st_mtime):
        if free(cache) >= needed:
            return
        shutil.rmtree(folder, ignore_errors=True)


def _free(cache: Path) -> int:
    usage = shutil.disk_usage(cache)
    return usage.free - int(_SPARE * usage.total)
