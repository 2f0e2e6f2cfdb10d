"""Hands an image from the builder's store to the node's without copying a byte.

Both keep a layer as an overlay directory of the same form. So each layer's files are hard-linked into a snapshot of the
node, under the layer's true chain id; the node is then told of the image (its configuration and a manifest) and finds
every layer unpacked. Pushing, hashing, pulling and unpacking 6 GB of torch is replaced by making some 60,000 directory
entries. Where the two stores are not on one file system, files are copied.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dreambooth_local import oci
from dreambooth_local.commands import CommandFailed, run
from dreambooth_local.node_images import NodeImages


@dataclass(frozen=True)
class Layer:
    """diff_id: digest of the layer's uncompressed tar, of `size` bytes; files: its overlay directory."""

    diff_id: str
    size: int
    files: Path


@dataclass(frozen=True)
class BuiltImage:
    """An image of the builder's store: its configuration as stored, its layers from the lowest up."""

    name: str
    id: str
    config: bytes
    layers: tuple[Layer, ...]


def chain_ids(diff_ids: Sequence[str]) -> list[str]:
    """The names under which containerd knows unpacked layers (OCI image specification, "Layer ChainID")."""
    chain: list[str] = []
    for diff_id in diff_ids:
        below = f"{chain[-1]} {diff_id}".encode() if chain else None
        chain.append("sha256:" + hashlib.sha256(below).hexdigest() if below else diff_id)
    return chain


def read_store(storage: Path, name: str) -> BuiltImage:
    """Reads containers-storage (overlay driver). Raises KeyError where no image has this full name."""
    images = json.loads((storage / "overlay-images/images.json").read_text())
    known = [image for image in images if name in image.get("names", [])]
    if not known:
        raise KeyError(f"{name} is not in {storage}")
    image = known[0]
    layers = {layer["id"]: layer for layer in json.loads((storage / "overlay-layers/layers.json").read_text())}
    chain: list[Layer] = []
    at = image["layer"]
    while at:
        layer = layers[at]
        chain.insert(0, Layer(layer["diff-digest"], layer["diff-size"], storage / "overlay" / at / "diff"))
        at = layer.get("parent", "")
    key = base64.b64encode(f"sha256:{image['id']}".encode()).decode()
    config = (storage / "overlay-images" / image["id"] / f"={key}").read_bytes()
    return BuiltImage(name, image["id"], config, tuple(chain))


def snapshot_directory(mounts: str) -> Path:
    """The writable directory in what `ctr snapshots mounts` prints: an overlay's upperdir, or a bind mount's source."""
    for option in mounts.replace(",", " ").split():
        if option.startswith("upperdir="):
            return Path(option.removeprefix("upperdir="))
    return Path(next(word for word in mounts.split() if word.startswith("/")))


def adopt(image: BuiltImage, node: NodeImages, scratch: Path) -> int:
    """Makes the node know the image; returns how many layers it did not have. Raises CommandFailed."""
    chain = chain_ids([layer.diff_id for layer in image.layers])
    held = set(node.ctr("snapshots", "ls").split())
    new = 0
    for place, layer in enumerate(image.layers):
        if chain[place] not in held:
            _adopt_layer(layer, chain[place], chain[place - 1] if place else "", node)
            new += 1
    archive = scratch / f"{image.id}.tar"
    oci.write_archive(archive, image.name, image.config, [(layer.diff_id, layer.size) for layer in image.layers], [])
    node.load(archive)
    archive.unlink()
    for name in chain:  # from now on the image holds its layers; when it is replaced, they go with it
        node.ctr("snapshots", "label", name, "containerd.io/gc.root=")
    return new


def _adopt_layer(layer: Layer, name: str, parent: str, node: NodeImages) -> None:
    key = f"adopt-{name}"
    with suppress(CommandFailed):  # there is one only after an attempt that was cut short
        node.ctr("snapshots", "rm", key)
    node.ctr("snapshots", "prepare", key, *([parent] if parent else []))
    directory = snapshot_directory(node.ctr("snapshots", "mounts", "/mnt", key))
    link = ["-l"] if can_link(layer.files.parent, directory.parent) else []
    run(["cp", "-a", *link, f"{layer.files}/.", f"{directory}/"])
    shutil.copystat(layer.files, directory)
    node.ctr("snapshots", "commit", name, key)


def can_link(source: Path, target: Path) -> bool:
    """Whether a file of one directory can be given a name in the other: one file system, and one mount of it."""
    with tempfile.NamedTemporaryFile(dir=source) as file:
        trial = target / Path(file.name).name
        try:
            os.link(file.name, trial)
        except OSError:
            return False
        trial.unlink()
        return True
