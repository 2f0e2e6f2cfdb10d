"""The programs that are compiled from Go modules: pinned versions, kept outside the checkout by name and version."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dreambooth_local.commands import run
from dreambooth_local.locks import alone
from dreambooth_local.places import Places

GO_SOURCES = Path(__file__).parent / "go"  # go.mod and go.sum pin every module
KUBERNETES = "1.34.4"  # the last but one whose kubelet takes Debian 12's containerd 1.6
ETCD = "3.6.5"  # an older one (Debian 12 has 3.4) lets the API server read each page of a list from the disk
HELM = "3.19.5"
COREDNS = "1.13.1"
PAUSE = "1"
LOCAL_PATH = "0.0.30"
METRICS_SERVER = "0.8.0"  # of the libraries that Kubernetes brings here; later ones want newer ones of their own
PROMETHEUS_ADAPTER = "0.12.0"  # its last: its keepers point to KEDA, which serves no other autoscalers than its own
MINIO = "RELEASE.2026-02-12T20-18-48Z"  # its last source
MINIO_MODULE = "v0.0.0-20260212201848-7aac2a2c5b7c"
VERSITYGW = "1.8.0"


@dataclass(frozen=True)
class Program:
    """`package`: a path below GO_SOURCES or an import path; `module`: its version where its own go.mod counts."""

    name: str
    version: str
    package: str
    module: str = ""

    @property
    def file(self) -> str:
        return f"{self.name}-{self.version}"

    @property
    def built(self) -> str:
        """The name that `go build` gives it: that of the folder, or of the one above a major version's."""
        *_, above, last = self.package.split("/")
        return above if re.fullmatch(r"v\d+", last) else last


def _kubernetes(name: str) -> Program:
    return Program(name, KUBERNETES, f"k8s.io/kubernetes/cmd/{name}")


# One module, so that what they share is compiled once.
CLUSTER = (
    _kubernetes("kube-apiserver"),
    _kubernetes("kube-controller-manager"),
    _kubernetes("kube-scheduler"),
    _kubernetes("kubelet"),
    _kubernetes("kube-proxy"),
    Program("etcd", ETCD, "go.etcd.io/etcd/server/v3"),
    Program("helm", HELM, "helm.sh/helm/v3/cmd/helm"),
    Program("coredns", COREDNS, "./coredns"),
    Program("pause", PAUSE, "./pause"),
    Program("metrics-server", METRICS_SERVER, "sigs.k8s.io/metrics-server/cmd/metrics-server"),
    Program("prometheus-adapter", PROMETHEUS_ADAPTER, "./prometheus-adapter"),
)
# Of the same module but built by itself: it imports logrus under its old, capitalised name, which no build may mix with
# the new one.
VOLUMES = Program("local-path-provisioner", LOCAL_PATH, "github.com/rancher/local-path-provisioner")
KUBECTL = _kubernetes("kubectl")
STORE = Program("minio", MINIO, "github.com/minio/minio", MINIO_MODULE)
# Asked for by tests alone: the store's tests run against a second, maintained S3 server.
OTHER_STORE = Program("versitygw", VERSITYGW, "github.com/versity/versitygw/cmd/versitygw", f"v{VERSITYGW}")


def cluster_builds(has_kubectl: bool) -> tuple[tuple[Program, ...], ...]:
    """What a node needs, build by build; kubectl only where the machine has none."""
    return (CLUSTER if has_kubectl else (*CLUSTER, KUBECTL)), (VOLUMES,)


def node_builds(where: Places) -> tuple[tuple[Program, ...], ...]:
    """`cluster_builds` for this machine; a kubectl that was compiled here is not the machine's own."""
    return cluster_builds(has_kubectl=kubectl(where).parent != where.programs)


def paths(where: Places) -> dict[str, Path]:
    """Name -> file of every program, there or not."""
    known = (*CLUSTER, VOLUMES, STORE, OTHER_STORE, KUBECTL)
    return {program.name: where.programs / program.file for program in known}


def kubectl(where: Places) -> Path:
    """The machine's own, or the compiled one."""
    own = shutil.which("kubectl")
    return Path(own) if own else where.programs / KUBECTL.file


def absent(where: Places, wanted: Sequence[Program]) -> list[Program]:
    return [program for program in wanted if not (where.programs / program.file).exists()]


def missing(where: Places) -> list[Program]:
    """What `up` would have to compile on this machine."""
    return absent(where, [program for build in (*node_builds(where), (STORE,)) for program in build])


def build_command(program: Sequence[Program], out: Path) -> list[str]:
    """One `go build` for programs of our module, or one `go install` for one with its own. Without debug data."""
    flags = ["-trimpath", "-ldflags", f"-s -w -X k8s.io/component-base/version.gitVersion=v{KUBERNETES}"]
    if program[0].module:
        (one,) = program
        return ["go", "install", "-trimpath", "-ldflags", "-s -w", f"{one.package}@{one.module}"]
    return ["go", "build", *flags, "-o", f"{out}/", *(one.package for one in program)]


def build_environment(environ: Mapping[str, str], out: Path) -> dict[str, str]:
    """CGO off: they run in images that hold nothing else. GOFLAGS of the user's own could ask for a vendor folder.

    GOGC: memory for time; versitygw took 55 s instead of 67 (one run each, two cores).
    """
    ours = {"CGO_ENABLED": "0", "GOBIN": str(out), "GOFLAGS": "-buildvcs=false", "GOWORK": "off"}
    return {"GOGC": "400", **environ, **ours}


def ensure(where: Places, wanted: Sequence[Program], log: Path) -> str:
    """Compiles what is missing of `wanted` (all of one module, or one program); a file appears whole or not at all.
    Processes that want the same wait for the first of them. Raises CommandFailed, or OSError where there is no Go."""
    with alone(where.compile_lock):
        lacking = absent(where, wanted)
        if lacking:
            _compile(where, lacking, log)
        for program in wanted:
            _point(where.programs / program.name, program.file)
    return f"compiled {', '.join(p.name for p in lacking)}" if lacking else "cached"


def _compile(where: Places, lacking: Sequence[Program], log: Path) -> None:
    where.programs.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=where.programs, prefix=".build-") as folder:
        out = Path(folder)
        run(build_command(lacking, out), log=log, cwd=GO_SOURCES, env=build_environment(os.environ, out))
        for program in lacking:
            (out / program.built).replace(where.programs / program.file)


def _point(link: Path, target: str) -> None:
    """bin/helm -> helm-3.19.5, so that a PATH can hold the folder."""
    if link.is_symlink() and os.readlink(link) == target:
        return
    link.unlink(missing_ok=True)
    link.symlink_to(target)
