"""Runs programs to their end. An error carries the command and the last lines it said."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import IO

TAIL_LINES = 15


class CommandFailed(Exception):
    """A program ended with another code than 0, or ran out of time."""


def run(
    argv: Sequence[str | Path],
    *,
    log: Path | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str | None = None,
    timeout: float | None = None,
) -> str:
    """Standard output of `argv`; with `log`, both streams go to that file instead (appended) and "" is returned."""
    words = [str(word) for word in argv]
    environ = {**os.environ, **(env or {})}
    try:
        with _sink(log) as sink:
            done = subprocess.run(
                words,
                input=stdin,
                stdout=sink,
                stderr=sink,
                text=True,
                env=environ,
                cwd=cwd,
                timeout=timeout,
                check=False,
            )
    except subprocess.TimeoutExpired as error:
        raise CommandFailed(f"{words[0]} did not end within {timeout} s: {' '.join(words)[:300]}") from error
    if done.returncode:
        said = log.read_text(errors="replace") if log else done.stderr or done.stdout
        raise CommandFailed(failure(words, done.returncode, said))
    return done.stdout or ""


def _sink(log: Path | None) -> AbstractContextManager[IO[str] | int]:
    """Where a command's streams go."""
    if log is None:
        return nullcontext(subprocess.PIPE)
    log.parent.mkdir(parents=True, exist_ok=True)
    return log.open("a")


def failure(words: Sequence[str], code: int, said: str) -> str:
    """One message: the command, its code, the last lines it said."""
    tail = "\n".join("  " + line for line in said.strip().splitlines()[-TAIL_LINES:])
    return f"`{' '.join(words)[:300]}` ended with {code}:\n{tail}"
