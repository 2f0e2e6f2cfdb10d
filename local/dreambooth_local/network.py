"""The node's links, routes, kernel settings and control group; what of the machine's rules is the cluster's."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from dreambooth_local.commands import CommandFailed, run
from dreambooth_local.places import CGROUP, NODE_ADDRESS, POD_BRIDGE, POD_RANGE, SERVICE_RANGE, SINK_BRIDGE

CGROUPS = Path("/sys/fs/cgroup")
SYSCTL = Path("/proc/sys")
FORWARDING = ("net/ipv4/ip_forward", "net/bridge/bridge-nf-call-iptables")


def ensure(state: Path) -> None:
    """A bridge without ports carries the node's address and swallows what is addressed to a pod or Service that is not
    there: nothing of the cluster's may leave by the machine's default route."""
    if not (Path("/sys/class/net") / SINK_BRIDGE).exists():
        run(["ip", "link", "add", SINK_BRIDGE, "type", "bridge"])
    run(["ip", "address", "replace", f"{NODE_ADDRESS}/24", "dev", SINK_BRIDGE])
    run(["ip", "link", "set", SINK_BRIDGE, "up"])
    run(["ip", "route", "replace", SERVICE_RANGE, "dev", SINK_BRIDGE])
    run(["ip", "route", "replace", POD_RANGE, "dev", SINK_BRIDGE, "metric", "900"])
    with suppress(CommandFailed):  # built into some kernels, absent from others that filter bridged packets anyway
        run(["modprobe", "br_netfilter"])
    _forward(state / "sysctl.json")
    _cgroups()


def _forward(record: Path) -> None:
    """Turns forwarding on and remembers what was there."""
    settings = [name for name in FORWARDING if (SYSCTL / name).exists()]
    if not record.exists():
        record.write_text(json.dumps({name: (SYSCTL / name).read_text().strip() for name in settings}))
    for name in settings:
        (SYSCTL / name).write_text("1")


def recorded(state: Path) -> dict[str, str]:
    """The kernel's settings as they were before the cluster."""
    record = state / "sysctl.json"
    return json.loads(record.read_text()) if record.exists() else {}


def _cgroups() -> None:
    """A control group for the pods, by which their processes are found again, in each hierarchy (version 2 has one)."""
    for hierarchy in hierarchies():
        group = hierarchy / CGROUP
        group.mkdir(exist_ok=True)
        for name in ("cpuset.cpus", "cpuset.mems"):  # version 1: a new group has none and holds no process until it has
            if (group / name).exists() and not (group / name).read_text().strip():
                (group / name).write_text((hierarchy / name).read_text())


def hierarchies() -> list[Path]:
    if (CGROUPS / "cgroup.controllers").exists():
        return [CGROUPS]
    return [entry for entry in CGROUPS.iterdir() if (entry / "cgroup.procs").exists() and not entry.is_symlink()]


def remove(state: Path) -> None:
    """Undoes `ensure` and takes the rules of kube-proxy, kubelet and CNI out of the tables."""
    for link in (POD_BRIDGE, SINK_BRIDGE):
        if (Path("/sys/class/net") / link).exists():
            run(["ip", "link", "delete", link])
    for family in ("iptables", "ip6tables"):
        with suppress(CommandFailed, FileNotFoundError):  # a kernel without IPv6 has no tables for it
            rules = run([f"{family}-save"])
            kept = without_cluster_rules(rules)
            if kept != rules:
                run([f"{family}-restore"], stdin=kept)
    for name, value in recorded(state).items():
        (SYSCTL / name).write_text(value)
    for hierarchy in hierarchies():
        _remove_groups(hierarchy / CGROUP)


def without_cluster_rules(saved: str) -> str:
    """iptables-save's text without chains and rules of kube-proxy, kubelet and CNI."""
    return "".join(line for line in saved.splitlines(keepends=True) if not is_cluster_rule(line))


def is_cluster_rule(line: str) -> bool:
    """A chain (`:NAME …`) or a rule (`-A CHAIN … -j TARGET`) that names a chain of Kubernetes or CNI."""
    words: Iterable[str] = line[1:].split() if line.startswith(":") else line.split()
    return line[:1] in (":", "-") and any(word.startswith(("KUBE-", "CNI-")) for word in words)


def _remove_groups(group: Path) -> None:
    """Groups go from the leaves up; the files in them are the kernel's."""
    if not group.is_dir():
        return
    for child in group.iterdir():
        if child.is_dir():
            _remove_groups(child)
    with suppress(OSError):  # a process that is just ending holds it for a moment; an empty group harms nobody
        group.rmdir()
