"""Daemons: started once, recognised after any time by process id and start time, ended with certainty."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

MARK = "DREAMBOOTH_LOCAL"  # in the environment of every daemon: which state folder it belongs to
PROC = Path("/proc")


@dataclass(frozen=True)
class Daemons:
    """The daemons of one state folder."""

    state: Path

    def record(self, name: str) -> Path:
        return self.state / "processes" / f"{name}.json"

    def log(self, name: str) -> Path:
        return self.state / "log" / f"{name}.log"

    def pid(self, name: str) -> int | None:
        """The process id of a living daemon. A number that another program got since does not count."""
        try:
            known = json.loads(self.record(name).read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        return known["pid"] if start_time(known["pid"]) == known["started"] else None

    def ensure(self, name: str, argv: Sequence[str | Path]) -> bool:
        """Starts the daemon unless it lives with this very command line. True when it was started."""
        words = [str(word) for word in argv]
        if self.pid(name) is not None:
            if json.loads(self.record(name).read_text())["argv"] == words:
                return False
            self.end(name)  # an older release's
        self.log(name).parent.mkdir(parents=True, exist_ok=True)
        self.record(name).parent.mkdir(parents=True, exist_ok=True)
        with self.log(name).open("ab") as sink:
            started = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                start_new_session=True,
                cwd=self.state,
                env={**os.environ, MARK: str(self.state)},
            )
        known = {"pid": started.pid, "started": start_time(started.pid), "argv": words}
        self.record(name).write_text(json.dumps(known))
        return True

    def end(self, name: str, seconds: float = 5.0) -> None:
        """SIGTERM, and SIGKILL after `seconds`."""
        pid = self.pid(name)
        if pid is not None:
            end([pid], seconds)
        self.record(name).unlink(missing_ok=True)

    def last_words(self, name: str, lines: int = 8) -> str:
        try:
            return "\n".join(self.log(name).read_text(errors="replace").splitlines()[-lines:])
        except FileNotFoundError:
            return ""


def parse_start_time(stat: str) -> str | None:
    """Field 22 of /proc/PID/stat, in clock ticks since boot; None for a zombie. Field 2, a name, may hold anything."""
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in ("Z", "X") else fields[19]


def start_time(pid: int) -> str | None:
    try:
        return parse_start_time((PROC / str(pid) / "stat").read_text())
    except (FileNotFoundError, ProcessLookupError):
        return None


def marked(state: Path) -> list[int]:
    """Processes that carry the mark of this state folder, recorded or not: daemons and containerd's shims."""
    wanted = f"{MARK}={state}".encode()
    return [pid for pid in pids() if pid != os.getpid() and wanted in _read(pid, "environ").split(b"\0")]


def in_cgroup(name: str) -> list[int]:
    """Processes in a control group at or below /`name`: those of the cluster's containers."""
    return [pid for pid in pids() if within(_read(pid, "cgroup").decode(errors="replace"), name)]


def within(cgroups: str, name: str) -> bool:
    """True when a line of /proc/PID/cgroup (`ID:CONTROLLERS:PATH`) is at or below /`name`."""
    paths = (line.split(":", 2)[-1] for line in cgroups.splitlines())
    return any(path == f"/{name}" or path.startswith(f"/{name}/") for path in paths)


def pids() -> list[int]:
    return [int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit()]


def _read(pid: int, name: str) -> bytes:
    try:
        return (PROC / str(pid) / name).read_bytes()
    except OSError:  # it ended meanwhile
        return b""


def end(victims: Iterable[int], seconds: float) -> None:
    """SIGTERM to all, then SIGKILL to those that still live after `seconds` (0: at once)."""
    alive = {pid: start_time(pid) for pid in victims}
    for sent, patience in ((signal.SIGTERM, seconds), (signal.SIGKILL, 5.0)):
        if sent == signal.SIGTERM and not seconds:
            continue
        for pid in alive:
            _signal(pid, sent)
        deadline = time.monotonic() + patience
        while alive and time.monotonic() < deadline:
            _reap(alive)
            alive = {pid: begun for pid, begun in alive.items() if begun and start_time(pid) == begun}
            time.sleep(0.05)


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _reap(victims: Iterable[int]) -> None:
    """Collects those that are this process's own children."""
    for pid in victims:
        try:
            os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            continue
