"""The project's images: built when their sources changed, and known to the node under a tag that names the sources."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from dreambooth_local import adoption, cluster, stand_ins
from dreambooth_local.api import Api, Unreachable
from dreambooth_local.builder import BASE_IMAGE, Builder, source_hash
from dreambooth_local.node_images import NodeImages, stale_references
from dreambooth_local.places import Places, places

CHECKOUT = Path(__file__).parents[2]
RELEASE = "0.1.0"
TARGETS = ("operator", "trainer", "server")
TOOLS = "docker.io/dreambooth/tools:latest"  # a name for the stage that resolves the pins: what has none is pruned


def tag(context: Path = CHECKOUT) -> str:
    """The release and what it was built from: another tag for other sources, so that a rollout follows a change."""
    return f"{RELEASE}-{source_hash(context)}"


def names(target: str, context: Path = CHECKOUT) -> list[str]:
    """The image's names: by its sources, and as the chart names the release."""
    return [f"docker.io/dreambooth/{target}:{tag(context)}", f"docker.io/dreambooth/{target}:{RELEASE}"]


def built(where: Places) -> dict[str, list[str]]:
    """Target -> names of the images of the last build."""
    return _read(where.images / "built.json")


def image_values() -> dict[str, str]:
    """Helm values that name the images of the last build."""
    return {f"images.{target}.tag": tags[0].rpartition(":")[2] for target, tags in built(places(os.environ)).items()}


def build(where: Places) -> str:
    """Every target; nothing is done when the sources are those of the last build."""
    record = where.images / "built.json"
    builder = Builder(where, where.logs / "images.log")
    wanted = {target: names(target) for target in TARGETS}
    if built(where) == wanted and all(builder.holds(tags[0]) for tags in wanted.values()):
        return "cached"
    record.unlink(missing_ok=True)
    builder.build("tools", [TOOLS], CHECKOUT)
    for target, tags in wanted.items():
        builder.build(target, tags, CHECKOUT)
    builder.forget([TOOLS, *(name for tags in wanted.values() for name in tags)])
    record.write_text(json.dumps(wanted, indent=1) + "\n")
    return ", ".join(TARGETS)


def load(where: Places) -> str:
    """Make the node know those of the last build, and forget older ones."""
    node = NodeImages(where.containerd_socket)
    builder = Builder(where, where.logs / "images.log")
    wanted = [BASE_IMAGE, *(name for tags in built(where).values() for name in tags)]
    held = node.names()
    recorded = _read(where.state / "loaded.json")
    loaded = {}
    for name in wanted:
        image = adoption.read_store(builder.storage, name)
        loaded[name] = image.id
        if name not in held or recorded.get(name) != image.id:
            adoption.adopt(image, node, where.state / "import")
    repositories = {name.rpartition(":")[0] for name in wanted}
    for name in held:
        if name not in wanted and name.rpartition(":")[0] in repositories:
            node.ctr("images", "rm", name)
    _forget_unnamed(where, node)
    (where.state / "loaded.json").write_text(json.dumps(loaded, indent=1) + "\n")
    return f"{sum(recorded.get(name) != i for name, i in loaded.items())} new"


def _forget_unnamed(where: Places, node: NodeImages) -> None:
    """Lets the node drop the layers of images that were replaced. Where no one can say what pods use, all are kept."""
    try:
        used = image_ids(Api(where.state / "pki").json("/api/v1/pods"))
    except Unreachable:
        return
    for reference in stale_references(node.names(), used):
        node.ctr("images", "rm", reference)


def image_ids(pods: dict[str, Any]) -> set[str]:
    """`sha256:…` of the images that the pods of a PodList run from."""
    kinds = ("initContainerStatuses", "containerStatuses")
    statuses = [s for pod in pods["items"] for kind in kinds for s in pod.get("status", {}).get(kind, [])]
    return {status.get("imageID", "") for status in statuses}


def load_stand_ins(where: Places) -> str:
    """MinIO and Prometheus."""
    return ", ".join(cluster.load_small(where, stand_ins.images(where))) or "there"


def current() -> bool:
    """Whether the node has the images of the present sources."""
    where = places(os.environ)
    return set(_read(where.state / "loaded.json")) >= {names(target)[0] for target in TARGETS}


def _read(path: Path) -> dict:
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
