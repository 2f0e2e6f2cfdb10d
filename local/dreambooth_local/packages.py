"""Debian packages: only what is missing is installed, and none leaves a service of its own running."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from dreambooth_local.commands import CommandFailed, run
from dreambooth_local.locks import alone

# What each is for: the node (containerd … kmod), images (buildah, mmdebstrap), stand-ins (prometheus).
PACKAGES = (
    "containerd",
    "runc",
    "containernetworking-plugins",
    "iptables",
    "conntrack",
    "openssl",
    "iproute2",
    "kmod",
    "ca-certificates",
    "buildah",
    "mmdebstrap",
    "prometheus",
)
# For tests of pages. The fonts are what Chromium writes with; no package of its own brings any.
BROWSER = ("chromium", "fonts-liberation")
# For tests of what torch compiles: a compiler, and the headers of Debian's Python.
COMPILER = ("g++", "python3-dev")
SERVICES = ("containerd", "prometheus", "prometheus-node-exporter")
POLICY = Path("/usr/sbin/policy-rc.d")
LOCK = Path("/run/lock/dreambooth-packages")
SYSTEMD = Path("/run/systemd/system")


class CannotInstall(Exception):
    """Packages are missing, and this machine or user cannot install them."""


def missing(wanted: Sequence[str], dpkg_status: str) -> list[str]:
    """Those of `wanted` that dpkg's `package status` lines do not show as installed."""
    installed = {line.split()[0] for line in dpkg_status.splitlines() if line.endswith(" installed")}
    return [name for name in wanted if name not in installed]


def missing_here(wanted: Sequence[str] = PACKAGES) -> list[str]:
    """What of `wanted` this machine lacks: everything where there is no dpkg."""
    with suppress(CommandFailed, FileNotFoundError):
        return missing(wanted, run(["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n"]))
    return list(wanted)


def check_installable(absent: Sequence[str], apt: bool, root: bool) -> None:
    """Raises CannotInstall, in words that say what to do."""
    if apt and root:
        return
    why = "run this as root" if apt else "there is no apt-get here"
    raise CannotInstall(f"missing Debian packages: {' '.join(absent)}; {why}, or install what they bring yourself")


def install(log: Path, wanted: Sequence[str] = PACKAGES) -> str:
    """Installs what of `wanted` is missing. Daemons that come with a package are neither started nor enabled.

    Raises CannotInstall, or CommandFailed with apt's last lines.
    """
    absent = missing_here(wanted)
    if not absent:
        return "all there"
    check_installable(absent, apt=shutil.which("apt-get") is not None, root=os.geteuid() == 0)
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    with _nothing_starts():
        run(["apt-get", "update", "-q"], log=log, env=quiet)
        run(["apt-get", "install", "-qy", "--no-install-recommends", *absent], log=log, env=quiet)
    if SYSTEMD.is_dir():
        for service in SERVICES:
            if any(service in name for name in absent):
                with suppress(CommandFailed):  # a package that brought no unit
                    run(["systemctl", "disable", "--now", service], log=log)
    return " ".join(absent)


@contextmanager
def _nothing_starts() -> Iterator[None]:
    """Debian's own way to say "start nothing", by one installation at a time."""
    with alone(LOCK):
        if POLICY.exists():
            yield
            return
        POLICY.write_text("#!/bin/sh\nexit 101\n")
        POLICY.chmod(0o755)
        try:
            yield
        finally:
            POLICY.unlink(missing_ok=True)
