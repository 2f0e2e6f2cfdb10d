"""What is known of a downloaded folder: where it came from, and the hashes of its big files."""

import contextlib
import os
import time
from pathlib import Path

from pydantic import BaseModel

from dreambooth_server.verify import sha256

_RECORD = ".record"
# What is smaller is hashed each time: it takes less than a tenth of a second.
BIG = 64 << 20
# After so long a file is hashed again although nothing about it has changed: disks rot. Seconds.
_TRUSTED = 7 * 86_400


class _Hashed(BaseModel):
    """A file as it was when it was hashed."""

    stamp: tuple[int, int, int, int]
    sha256: str
    when: float


class _Content(BaseModel):
    origins: dict[str, str] = {}
    hashes: dict[str, _Hashed] = {}


class Record:
    """The record in a folder. One that cannot be read is empty; one that cannot be written is not kept."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            self._content = _Content.model_validate_json((folder / _RECORD).read_bytes())
        except (OSError, ValueError):
            self._content = _Content()
        self._known = self._content.model_copy(deep=True)

    @property
    def origins(self) -> dict[str, str]:
        """URI → version of what was there when the folder was found to be the same."""
        return self._content.origins

    def sha256(self, path: Path) -> str:
        """SHA-256, hex, of a file in the folder; a big one's is remembered as long as its size, inode, and times of
        change stay what they were."""
        before = _stamp(path)
        if before[0] < BIG:
            return sha256(path)
        name = path.relative_to(self._folder).as_posix()
        known = self._content.hashes.get(name)
        if known and known.stamp == before and 0 <= time.time() - known.when < _TRUSTED:
            return known.sha256
        self._content.hashes.pop(name, None)
        found, when = sha256(path), time.time()
        if _stamp(path) == before:
            self._content.hashes[name] = _Hashed(stamp=before, sha256=found, when=when)
        return found

    def save(self) -> None:
        """Write what is new, for whoever comes next."""
        if self._content == self._known:
            return
        new = self._folder / f"{_RECORD}-{os.getpid()}-{time.monotonic_ns()}"
        with contextlib.suppress(OSError):
            new.write_text(self._content.model_dump_json())
            os.replace(new, self._folder / _RECORD)
            self._known = self._content.model_copy(deep=True)


def _stamp(path: Path) -> tuple[int, int, int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino
