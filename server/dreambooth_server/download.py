"""Fetching a folder so that a killed process leaves nothing that looks complete."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from dreambooth_server.sources import Source


def download(source: Source, names: Iterable[str], target: Path, check: Callable[[Path], None]) -> Path:
    """Fetch `names` beside `target`, `check` the folder, then rename it to `target`; what was there is replaced.

    Raises what `source` and `check` raise; then nothing is left behind.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=target.parent, prefix=".part-"))
    try:
        for name in names:
            path = part / name
            path.parent.mkdir(parents=True, exist_ok=True)
            source.fetch(name, path)
        check(part)
        shutil.rmtree(target, ignore_errors=True)
        os.rename(part, target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return target
