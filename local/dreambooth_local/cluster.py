"""Brings the one-node cluster up, from nothing or from whatever was left of it."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence

from dreambooth_local import addons, configs, health, network, oci, pki, programs
from dreambooth_local.api import Api
from dreambooth_local.node_images import NodeImages
from dreambooth_local.oci import SmallImage
from dreambooth_local.places import Places
from dreambooth_local.processes import Daemons

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


class NotUp(Exception):
    """A part of the cluster did not come up in time, or ended at once; the message holds its last words."""


def architecture() -> str:
    """This machine's, in the words of OCI."""
    return ARCHITECTURES.get(platform.machine(), platform.machine())


def until(check: Callable[[], bool], seconds: float, what: str, daemons: Daemons, watched: Sequence[str] = ()) -> None:
    """Waits for `check`. Raises NotUp when the time is over or one of the watched daemons ended."""
    deadline = time.monotonic() + seconds
    while not check():
        for name in watched:
            if daemons.pid(name) is None:
                raise NotUp(f"{name} ended. Its last words:\n{daemons.last_words(name)}")
        if time.monotonic() > deadline:
            words = "\n".join(f"{name}: {daemons.last_words(name, 4)}" for name in watched)
            raise NotUp(f"{what}: not within {seconds:.0f} s\n{words}")
        time.sleep(0.2)


def control_plane(where: Places) -> str:
    """Network, certificates, etcd, API server, controllers, scheduler; returns once the API server is ready."""
    for folder in (where.state, where.run, where.state / "cni/conf", where.state / "volumes"):
        folder.mkdir(parents=True, exist_ok=True)
    # First of all files: by it `teardown.is_ours` knows a cluster whose `up` was cut short.
    (where.state / "cni/conf/10-pods.conflist").write_text(configs.cni(where))
    network.ensure(where.state)
    pki.ensure(where.state)
    (where.state / "containerd.toml").write_text(configs.containerd(where))
    (where.state / "kubelet.yaml").write_text(configs.kubelet(where))
    daemons, lines = Daemons(where.state), configs.control_plane(where, programs.paths(where))
    first = ("etcd", "apiserver")
    started = [name for name in first if daemons.ensure(name, lines[name])]
    until(Api(where.state / "pki").answers, 120, "the API server", daemons, first)
    started += [name for name in lines if name not in first and daemons.ensure(name, lines[name])]
    return f"started {', '.join(started)}" if started else "running"


def runtime(where: Places) -> str:
    """containerd, with the images that a node needs first."""
    daemons, node = Daemons(where.state), NodeImages(where.containerd_socket)
    started = daemons.ensure("containerd", configs.node(where, programs.paths(where))["containerd"])
    until(node.answers, 60, "containerd", daemons, ("containerd",))
    load_small(where, addons.first_images(where))
    return "started" if started else "running"


def load_small(where: Places, images: Sequence[SmallImage]) -> list[str]:
    """Writes and imports those that the node lacks; returns their names."""
    node = NodeImages(where.containerd_socket)
    held = node.names()
    lacking = [image for image in images if image.name not in held]
    for image in lacking:
        archive = where.state / "import" / (image.name.replace("/", "_").replace(":", "_") + ".tar")
        oci.write_small(archive, image, architecture())
        node.load(archive)
        archive.unlink()
    return [image.name for image in lacking]


def node(where: Places) -> str:
    """kubelet, kube-proxy, DNS, volumes; returns once a pod could start and find a Service by name."""
    daemons, lines = Daemons(where.state), configs.node(where, programs.paths(where))
    for name in ("kubelet", "proxy"):
        daemons.ensure(name, lines[name])
    addons.apply(where, *addons.FIRST)
    until(lambda: not health.complaints(where), 180, "node and DNS", daemons, configs.DAEMONS)
    return "ready"


def metrics(where: Places) -> str:
    """metrics-server and prometheus-adapter; returns once the first has figures and the second answers."""
    load_small(where, addons.metrics_images(where))
    addons.apply(where, *addons.METRICS)
    until(lambda: health.measures(where), 180, "metrics-server", Daemons(where.state))
    until(lambda: health.counts(where), 180, "prometheus-adapter", Daemons(where.state))
    return "measures"
