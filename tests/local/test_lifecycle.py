"""`up` on what runs and on what was killed, and `down`, which leaves nothing. Runs last: the cluster goes with it."""

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dreambooth_demo.kube import Kube
from dreambooth_local import health, network, processes
from dreambooth_local.configs import DAEMONS
from dreambooth_local.places import CGROUP, Places, places
from dreambooth_local.processes import Daemons
from dreambooth_local.teardown import CNI_RESULTS, mounts_below, sandboxes

pytestmark = [pytest.mark.cluster, pytest.mark.local_lifecycle, pytest.mark.timeout(900)]

LINKS = Path("/sys/class/net")
NAMESPACES = Path("/run/netns")


def command(name: str) -> str:
    """Runs the program as `make` does; what it said."""
    line = [sys.executable, "-m", "dreambooth_local", name]
    done = subprocess.run(line, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stderr


def pids(where: Places) -> dict[str, int | None]:
    return {name: Daemons(where.state).pid(name) for name in DAEMONS}


@pytest.fixture
def where(kube: Kube) -> Places:
    """The local cluster, running."""
    if not kube.local:
        pytest.skip("KUBECONFIG names a cluster that is not ours to kill")
    command("up")
    return places(os.environ)


@pytest.fixture
def own_rule() -> Iterator[list[str]]:
    """A rule of the machine's owner, in a chain of its own; how to list it."""
    chain = f"OWN-{secrets.token_hex(4)}"
    subprocess.run(["iptables", "-N", chain], check=True)
    subprocess.run(["iptables", "-A", chain, "-s", "192.0.2.7", "-j", "RETURN"], check=True)
    yield ["iptables", "-S", chain]
    subprocess.run(["iptables", "-F", chain], check=True)
    subprocess.run(["iptables", "-X", chain], check=True)


def test_up_leaves_a_cluster_that_serves_alone(where: Places) -> None:
    before, begun = pids(where), time.monotonic()
    assert "is up" in command("up")
    # Less than images take to be built.
    assert time.monotonic() - begun < 20
    assert pids(where) == before
    assert None not in before.values()


def test_up_after_every_daemon_was_killed(where: Places, kube: Kube) -> None:
    name = f"kept-{secrets.token_hex(4)}"
    kube.kubectl("create", "configmap", name, "-n", "default", "--from-literal=a=b")
    try:
        before = pids(where)
        for pid in before.values():
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
        assert health.complaints(where)
        command("up")
        assert health.complaints(where) == []
        after = pids(where)
        assert all(after[daemon] not in (None, before[daemon]) for daemon in DAEMONS)
        kept = kube.get("configmap", name, "default")
        assert kept is not None
        assert kept["data"] == {"a": "b"}
    finally:
        kube.kubectl("delete", "configmap", name, "-n", "default")


def cni_namespaces() -> set[str]:
    return {entry.name for entry in NAMESPACES.glob("cni-*")} if NAMESPACES.exists() else set()


def shim_sockets(where: Places) -> list[Path]:
    """The sockets that containerd 1.6 puts into a folder of its own choice."""
    addresses = where.run.glob("containerd/io.containerd.runtime.v2.task/*/*/address")
    return [Path(address.read_text().removeprefix("unix://")) for address in addresses]


def assert_nothing_is_left(where: Places, sockets: list[Path], sysctls: dict[str, str]) -> None:
    """Processes, mounts, links, rules, sockets, settings, folders."""
    assert processes.marked(where.state) == []
    assert processes.in_cgroup(CGROUP) == []
    assert mounts_below(Path("/proc/mounts").read_text(), where.state, where.run) == []
    assert [link.name for link in LINKS.iterdir() if link.name.startswith("dreambooth-")] == []
    saved = subprocess.run(["iptables-save"], check=True, capture_output=True, text=True).stdout
    assert [line for line in saved.splitlines() if network.is_cluster_rule(line)] == []
    assert [socket for socket in sockets if socket.exists()] == []
    assert {name: (network.SYSCTL / name).read_text().strip() for name in sysctls} == sysctls
    assert not where.state.exists()
    assert not where.run.exists()


def test_down_leaves_nothing_and_touches_nothing_else(where: Places, found_running: bool, own_rule: list[str]) -> None:
    if found_running and not os.environ.get("DREAMBOOTH_TEST_DOWN"):
        pytest.skip("the cluster ran before the tests: what is in it is kept (DREAMBOOTH_TEST_DOWN=1 gives it up)")
    sysctls, pods = network.recorded(where.state), sandboxes(where)
    assert pods
    sockets, daemons, namespaces = shim_sockets(where), list(pids(where).values()), cni_namespaces()
    rule = subprocess.run(own_rule, check=True, capture_output=True, text=True).stdout
    assert "192.0.2.7" in rule
    try:
        assert f"{len(DAEMONS)} daemons ended" in command("down")
        assert all(processes.start_time(pid) is None for pid in daemons if pid is not None)
        assert cni_namespaces() <= namespaces
        assert [f.name for f in CNI_RESULTS.glob("*") if any(pod in f.name for pod in pods)] == []
        assert_nothing_is_left(where, sockets, sysctls)
        assert subprocess.run(own_rule, check=True, capture_output=True, text=True).stdout == rule
        assert "nothing ran" in command("down")
    finally:
        if found_running:
            command("up")
