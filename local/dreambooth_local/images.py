"""The project's images: built when their sources changed, and known to the node under a tag that names the sources."""

from __future__ import annotations

import json
import os
from pathlib import Path

from dreambooth_local import adoption, cluster, stand_ins
from dreambooth_local.builder import BASE_IMAGE, Builder, source_hash
from dreambooth_local.node_images import NodeImages
from dreambooth_local.places import Places, places

CHECKOUT = Path(__file__).parents[2]
RELEASE = "0.1.0"
TARGETS = ("operator", "trainer", "server")


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
    for target, tags in wanted.items():
        builder.build(target, tags, CHECKOUT)
    builder.forget(name for tags in wanted.values() for name in tags)
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
    (where.state / "loaded.json").write_text(json.dumps(loaded, indent=1) + "\n")
    return f"{sum(recorded.get(name) != i for name, i in loaded.items())} new"


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
