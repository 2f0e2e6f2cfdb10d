"""Fetching a folder so that a killed process leaves nothing that looks complete, and several may do it at once."""

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from dreambooth_server.disk import hold
from dreambooth_server.sources import Source


def download(source: Source, names: Iterable[str], cache: Path, verify: Callable[[Path], str]) -> Path:
    """Fetch `names` into a folder of `cache`, to which `verify` gives its name: that of its content, for a folder that
    is there already is taken for the same.

    Raises what `source` and `verify` raise; then nothing is left behind.
    """
    cache.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=cache, prefix=".part-"))
    lock = hold(part)
    try:
        part.chmod(0o755)  # mkdtemp's folders are for one user alone
        for name in names:
            path = part / name
            path.parent.mkdir(parents=True, exist_ok=True)
            source.fetch(name, path)
        target = cache / verify(part)
        try:
            os.rename(part, target)
        except OSError as e:
            # Somebody else was quicker.
            if e.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
    finally:
        if lock is not None:
            os.close(lock)
        shutil.rmtree(part, ignore_errors=True)
    return target
