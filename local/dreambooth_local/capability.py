"""Whether this machine can hold the local cluster, and if not, why."""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

from dreambooth_local import packages, programs
from dreambooth_local.places import Places, places

FREE_BYTES = 20e9  # programs 1.5 GB, Go's build cache 4 GB, image with torch 6 GB, wheels 7 GB


@dataclass(frozen=True)
class Machine:
    """What is decisive about a machine."""

    system: str
    root: bool
    go: bool
    programs_missing: bool
    debian: bool
    packages_missing: bool
    overlay: bool
    free_bytes: float
    images_cached: bool


def reasons(machine: Machine) -> list[str]:
    """Each is a sentence for a person; an empty list means that the cluster can come up."""
    if machine.system != "Linux":
        return [f"this is {machine.system}, not Linux"]
    found = []
    if not machine.root:
        found.append("not root: a node needs cgroups, mounts and network namespaces")
    if machine.programs_missing and not machine.go:
        found.append("no Go: the programs of Kubernetes are compiled from their modules")
    if machine.packages_missing and not machine.debian:
        found.append("no apt-get: containerd, runc and others come as Debian packages")
    if not machine.overlay:
        found.append("the kernel has no overlay file system")
    if not machine.images_cached and machine.free_bytes < FREE_BYTES:
        found.append(f"only {machine.free_bytes / 1e9:.0f} GB of disk are free; {FREE_BYTES / 1e9:.0f} GB are needed")
    return found


def look(where: Places) -> Machine:
    """Looks at this machine. Reads only."""
    linux = platform.system() == "Linux"
    existing = next(p for p in (where.cache, *where.cache.parents) if p.exists())
    return Machine(
        system=platform.system(),
        root=linux and os.geteuid() == 0,
        go=shutil.which("go") is not None,
        programs_missing=bool(programs.missing(where)),
        debian=shutil.which("apt-get") is not None,
        packages_missing=bool(packages.missing_here()),
        overlay=linux and "overlay" in Path("/proc/filesystems").read_text(),
        free_bytes=float(shutil.disk_usage(existing).free),
        images_cached=(where.images / "storage").exists(),
    )


def capable(machine: Machine | None = None) -> list[str]:
    """Why this machine cannot have a local cluster; empty when it can."""
    return reasons(machine or look(places(os.environ)))
