"""Takes the cluster down and leaves nothing behind, also after an unclean end. The cache (programs, images) stays."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from pathlib import Path

from dreambooth_local import network, processes
from dreambooth_local.commands import CommandFailed, run
from dreambooth_local.places import CGROUP, CNI_NETWORK, Places
from dreambooth_local.processes import Daemons

# Nobody restarts what the one before it watches; the store goes last.
ORDER = ("kubelet", "proxy", "scheduler", "controllers", "containerd", "apiserver", "etcd")
CNI_RESULTS = Path("/var/lib/cni/results")
CONTAINER_LOGS = Path("/var/log/containers")


def down(where: Places) -> str:
    """Safe to repeat. Only what this cluster started is ended: by record, by mark and by control group."""
    daemons = Daemons(where.state)
    living = sum(daemons.pid(name) is not None for name in ORDER)
    for name in ORDER[:4]:
        daemons.end(name)
    _end_containers(where)
    for name in ORDER[4:]:
        daemons.end(name)
    _end_containers(where)  # what containerd started in its last moment, and daemons whose record was lost
    unmount(where)
    _shim_sockets(where)
    network.remove(where.state)
    _traces(where)
    shutil.rmtree(where.run, ignore_errors=True)
    shutil.rmtree(where.state, ignore_errors=True)
    return f"{living} daemons ended" if living else "nothing ran"


def _end_containers(where: Places) -> None:
    """Containers' processes with SIGKILL; the shims, and any other that carries the mark, after them."""
    processes.end(processes.in_cgroup(CGROUP), 0)
    if all(Daemons(where.state).pid(name) is None for name in ORDER[4:]):
        processes.end(processes.marked(where.state), 0)
        processes.end(processes.in_cgroup(CGROUP), 0)


def mounts_below(table: str, *folders: Path) -> list[str]:
    """Mount points of /proc/mounts at or below the folders, innermost first."""
    points = [line.split()[1].encode().decode("unicode_escape") for line in table.splitlines() if line]
    ours = {p for p in points for folder in folders if p == str(folder) or p.startswith(f"{folder}/")}
    return sorted(ours, key=lambda point: (point.count("/"), point), reverse=True)


def unmount(where: Places) -> None:
    """Pods' volumes, containers' roots, network namespaces. Lazily: a dead NFS or FUSE mount must not hold us."""
    for point in mounts_below(Path("/proc/mounts").read_text(), where.state, where.run):
        with suppress(CommandFailed):  # one that a parent's unmounting took along
            run(["umount", "-l", point])


def _shim_sockets(where: Places) -> None:
    """containerd 1.6 puts its shims' sockets into /run/containerd/s whatever its own state folder is."""
    for address in where.run.glob("containerd/io.containerd.runtime.v2.task/*/*/address"):
        Path(address.read_text().removeprefix("unix://")).unlink(missing_ok=True)


def sandboxes(where: Places) -> list[str]:
    """Ids of the pods' sandboxes: a pod's loopback is a network of containerd's own, named by them alone."""
    return sorted(f.name for f in (where.state / "containerd/io.containerd.grpc.v1.cri/sandboxes").glob("*"))


def _traces(where: Places) -> None:
    """What libcni and kubelet write to fixed places."""
    for result in CNI_RESULTS.glob(f"{CNI_NETWORK}-*"):
        result.unlink(missing_ok=True)
    for sandbox in sandboxes(where):
        (CNI_RESULTS / f"cni-loopback-{sandbox}-lo").unlink(missing_ok=True)
    if CONTAINER_LOGS.is_dir():
        for link in CONTAINER_LOGS.iterdir():
            if link.is_symlink() and str(link.readlink()).startswith(f"{where.state}/"):
                link.unlink()
    for folder in (CNI_RESULTS, CNI_RESULTS.parent, CONTAINER_LOGS):
        with suppress(OSError):  # others' files are in it, or it never was
            folder.rmdir()


def is_ours(state: Path) -> bool:
    """False for a folder that holds something, but no cluster of this package: it is never removed."""
    if all(path.is_dir() for path in state.rglob("*")):
        return True
    config = state / "cni/conf/10-pods.conflist"
    with suppress(OSError, json.JSONDecodeError):
        return json.loads(config.read_text())["name"] == CNI_NETWORK
    return (state / "processes").is_dir() or (state / "log").is_dir()
