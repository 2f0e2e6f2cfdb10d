"""Downloads that are kept on a disk which several processes may share: what is in use stays, and what was used longest
ago goes when there is no room for one more.

Locks are flock(2)'s: they end with their process, however it ends. Where a file system has none, or has them for each
node by itself, what was used within the last minute stays all the same.
"""

import contextlib
import fcntl
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

BASES, MODELS = "bases", "models"
"""Folders of a cache, each with one folder for each download."""
_LOCK = ".lock"
# Of the whole disk, left to others: with less of it the kubelet evicts pods (`imagefs.available<15%`).
_SPARE = 0.15
# What was used so lately may be being read, seconds; what nobody holds and nobody finished is left over after so long.
_RECENT, _LEFT_OVER = 60.0, 600.0


def used_now(folder: Path) -> None:
    """Note that `folder` was used."""
    with contextlib.suppress(OSError):  # Another user's; or gone.
        os.utime(folder)


def hold(folder: Path) -> int | None:
    """Keep `folder` from making room for others until the returned descriptor is closed, or this process ends; None
    when it is not there any more."""
    try:
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except FileNotFoundError:
        return None
    except OSError:
        # Another user's: nothing is written into it, and nobody who must not write could delete it.
        with contextlib.suppress(OSError):
            return os.open(folder, os.O_RDONLY)
        return None
    if _locked(lock, fcntl.LOCK_SH) and _is(lock, folder):
        return lock
    os.close(lock)
    return None


def remove(folder: Path) -> bool:
    """Delete `folder` unless somebody holds it; nobody ever sees a part of it."""
    try:
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError:
        return False
    try:
        return _locked(lock, fcntl.LOCK_EX) and _is(lock, folder) and _take_away(folder)
    finally:
        os.close(lock)


def discard(folder: Path, inode: int) -> None:
    """Delete a folder that was found to be spoiled, whoever holds it; not what has taken its place since."""
    with contextlib.suppress(OSError):
        if folder.stat().st_ino == inode:
            _take_away(folder)


@contextlib.contextmanager
def alone(cache: Path, what: str) -> Iterator[None]:
    """Wait until no other process does the same `what` in `cache`; where there are no locks, do not wait."""
    cache.mkdir(parents=True, exist_ok=True)
    lock = os.open(cache / f".{what}{_LOCK}", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def make_room(cache: Path, needed: int, free: Callable[[Path], int] | None = None) -> None:
    """Delete downloads in `cache`, those used longest ago first, until `needed` bytes fit with some to spare.

    `free` says how many bytes of the disk may be used. Where nothing is left to delete, the download will fail.
    """
    if not cache.is_dir():
        return
    free = free or _free
    if free(cache) >= needed:
        return
    for used, folder in sorted(_kept(cache)):
        # One that was begun and not finished: a dot is before its name.
        rest = _LEFT_OVER if folder.name.startswith(".") else _RECENT
        if time.time() - used > rest and remove(folder) and free(cache) >= needed:
            return


def _kept(cache: Path) -> Iterator[tuple[float, Path]]:
    """Every download, finished or not, and when it was used last."""
    for folder in (*cache.glob(f"{BASES}/*/"), *cache.glob(f"{MODELS}/*/")):
        with contextlib.suppress(OSError):
            inside = folder.rglob("*") if folder.name.startswith(".") else ()
            yield max(path.stat().st_mtime for path in (folder, *inside)), folder


def _take_away(folder: Path) -> bool:
    gone = folder.with_name(f".gone-{uuid.uuid4().hex}")
    try:
        os.rename(folder, gone)
    except OSError:
        return False
    shutil.rmtree(gone, ignore_errors=True)
    return True


def _locked(lock: int, kind: int) -> bool:
    """Whether the lock was had; where there are none it was."""
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _is(lock: int, folder: Path) -> bool:
    """Whether the open file `lock` is still the one of `folder`."""
    try:
        return os.path.samestat(os.fstat(lock), os.stat(folder / _LOCK))
    except OSError:
        return False


def _free(cache: Path) -> int:
    usage = shutil.disk_usage(cache)
    return usage.free - int(_SPARE * usage.total)
