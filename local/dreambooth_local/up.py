"""`up`: from a bare machine to a cluster that knows every image, as much at a time as two cores and the order allow."""

from __future__ import annotations

from pathlib import Path

from dreambooth_local import cluster, health, images, packages, programs, teardown
from dreambooth_local.builder import Builder
from dreambooth_local.locks import alone
from dreambooth_local.places import Places
from dreambooth_local.progress import Progress, Step


def steps(where: Places) -> list[Step]:
    """What is to be done; each step is idempotent. Compiling takes the cores, packages and wheels the network."""
    log = where.logs
    compile_log = log / "compile.log"
    return [
        Step("Debian packages", lambda: packages.install(log / "packages.log")),
        Step("compile Kubernetes", lambda: compile_cluster(where, compile_log)),
        Step("base image", Builder(where, log / "images.log").base_image, ["Debian packages"]),
        Step("build images", lambda: images.build(where), ["base image"]),
        Step("control plane", lambda: cluster.control_plane(where), ["Debian packages", "compile Kubernetes"]),
        Step("containerd", lambda: cluster.runtime(where), ["control plane"]),
        Step("node", lambda: cluster.node(where), ["containerd"]),
        Step("images on the node", lambda: images.load(where), ["containerd", "build images"]),
        Step("compile MinIO", lambda: programs.ensure(where, [programs.STORE], compile_log), ["compile Kubernetes"]),
        Step("stand-in images", lambda: images.load_stand_ins(where), ["compile MinIO", "containerd"]),
        Step("metrics", lambda: cluster.metrics(where), ["node"]),
    ]


def compile_cluster(where: Places, log: Path) -> str:
    """What a node needs."""
    done = [programs.ensure(where, build, log) for build in programs.node_builds(where)]
    return ", ".join(dict.fromkeys(done))


def up(where: Places, progress: Progress) -> None:
    """Bring everything up; one that serves and knows the present images is left alone. Raises StepFailed, NotUp."""
    with alone(where.lock):
        if serves(where):
            progress.say("the local cluster is up")
            return
        if not teardown.is_ours(where.state):
            raise cluster.NotUp(f"{where.state} holds something that is not this cluster's: set DREAMBOOTH_STATE")
        timings(where).unlink(missing_ok=True)
        progress.run(steps(where))
        progress.write(timings(where), "up")


def timings(where: Places) -> Path:
    """Written at the end of an `up`: where it is missing, some step has not been done."""
    return where.state / "timings.json"


def serves(where: Places) -> bool:
    """Whether there is nothing to do."""
    done = timings(where).exists() and images.current() and not programs.missing(where)
    return done and not health.complaints(where)
