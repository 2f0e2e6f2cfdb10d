"""What every cluster needs beyond the node: DNS, volumes by claim, metrics; their images and manifests."""

from __future__ import annotations

from pathlib import Path
from string import Template
from textwrap import indent

from dreambooth_local import programs
from dreambooth_local.commands import run
from dreambooth_local.configs import PAUSE_IMAGE
from dreambooth_local.oci import SmallImage
from dreambooth_local.places import Places

MANIFESTS = Path(__file__).parent / "manifests"
FIRST = ("node", "coredns", "storage")
METRICS = ("metrics", "adapter")
# One text for every cluster: what the chart gives to those that bring their own adapter.
RULES = Path(__file__).parents[2] / "charts/dreambooth/files/adapter-rules.yaml"


def _alone(name: str, program: Path, path: str, user: str = "65532:65532") -> SmallImage:
    """An image of one static program."""
    return SmallImage(name, {path: program}, [path], user=user)


def first_images(where: Places) -> list[SmallImage]:
    """Those that a node needs before any other."""
    program = programs.paths(where)
    return [
        _alone(PAUSE_IMAGE, program["pause"], "/pause", user="65535:65535"),
        _alone(f"docker.io/dreambooth/coredns:{programs.COREDNS}", program["coredns"], "/coredns"),
        _alone(
            f"docker.io/rancher/local-path-provisioner:v{programs.LOCAL_PATH}",
            program["local-path-provisioner"],
            "/usr/bin/local-path-provisioner",
        ),
    ]


def metrics_images(where: Places) -> list[SmallImage]:
    """Those of the metrics APIs."""
    versions = {"metrics-server": programs.METRICS_SERVER, "prometheus-adapter": programs.PROMETHEUS_ADAPTER}
    return [
        _alone(f"docker.io/dreambooth/{name}:v{version}", programs.paths(where)[name], f"/{name}")
        for name, version in versions.items()
    ]


def manifest(name: str, where: Places) -> str:
    """The text of one manifest, its places filled in."""
    text = (MANIFESTS / f"{name}.yaml").read_text()
    places = {
        "storage": {"volumes": f"{where.state}/volumes"},
        "adapter": {"rules": indent(RULES.read_text().rstrip(), "    ")},
    }
    return Template(text).substitute(places[name]) if name in places else text


def apply(where: Places, *names: str) -> None:
    """Server-side apply of the named manifests, as this package's own field manager."""
    text = "\n---\n".join(manifest(name, where) for name in names)
    kubectl = programs.kubectl(where)
    run([kubectl, f"--kubeconfig={where.kubeconfig}", "apply", "--server-side", "--force-conflicts",
         "--field-manager=dreambooth-local", "-f", "-"], stdin=text, timeout=120)  # fmt: skip
