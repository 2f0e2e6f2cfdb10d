"""Debian packages: only what is missing is installed, and none leaves a service of its own running."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from dreambooth_local.commands import CommandFailed, run

# What each is for: the node (containerd … iproute2), images (buildah, mmdebstrap), stand-ins (prometheus).
PACKAGES = (
    "containerd",
    "runc",
    "etcd-server",
    "containernetworking-plugins",
    "iptables",
    "conntrack",
    "openssl",
    "iproute2",
    "ca-certificates",
    "buildah",
    "mmdebstrap",
    "prometheus",
)
SERVICES = ("containerd", "etcd", "prometheus", "prometheus-node-exporter")
POLICY = Path("/usr/sbin/policy-rc.d")
SYSTEMD = Path("/run/systemd/system")


def missing(wanted: Sequence[str], dpkg_status: str) -> list[str]:
    """Those of `wanted` that dpkg's `package status` lines do not show as installed."""
    installed = {line.split()[0] for line in dpkg_status.splitlines() if line.endswith(" installed")}
    return [name for name in wanted if name not in installed]


def missing_here() -> list[str]:
    """What of PACKAGES this machine lacks. Raises CommandFailed or OSError where there is no dpkg."""
    with suppress(CommandFailed):
        return missing(PACKAGES, run(["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n"]))
    return list(PACKAGES)


def install(log: Path) -> str:
    """Installs what is missing. Daemons that come with a package are neither started nor enabled."""
    absent = missing_here()
    if not absent:
        return "all there"
    policy = not POLICY.exists()
    if policy:  # Debian's own way to say "start nothing"
        POLICY.write_text("#!/bin/sh\nexit 101\n")
        POLICY.chmod(0o755)
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    try:
        run(["apt-get", "update", "-q"], log=log, env=quiet)
        run(["apt-get", "install", "-qy", "--no-install-recommends", *absent], log=log, env=quiet)
    finally:
        if policy:
            POLICY.unlink(missing_ok=True)
    if SYSTEMD.is_dir():
        for service in SERVICES:
            if any(service in name for name in absent):
                with suppress(CommandFailed):  # a package that brought no unit
                    run(["systemctl", "disable", "--now", service], log=log)
    return " ".join(absent)
