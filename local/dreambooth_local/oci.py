"""An image of a few files, written without a builder: one layer, deterministic, an archive for `ctr images import`."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

PASSWD = "root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532::/tmp:/sbin/nologin\n"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"


@dataclass(frozen=True)
class SmallImage:
    """`files`: path in the image -> file or folder on this machine."""

    name: str
    files: dict[str, Path]
    entrypoint: Sequence[str]
    command: Sequence[str] = ()
    user: str = "65532:65532"
    links: dict[str, str] = field(default_factory=dict)


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def layer(image: SmallImage) -> bytes:
    """A tar of the image's files: sorted, owned by root, without times; /tmp is everyone's."""
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as tar:
        made: set[str] = set()
        for target, source in sorted(image.files.items()):
            for path, file in sorted(_walk(target, source)):
                _parents(tar, path, made)
                info = tarfile.TarInfo(path.lstrip("/"))
                info.size, info.mode = file.stat().st_size, 0o755 if file.stat().st_mode & 0o111 else 0o644
                with file.open("rb") as content:
                    tar.addfile(info, content)
        _text(tar, "etc/passwd", PASSWD, made)
        for name, target in sorted(image.links.items()):
            _parents(tar, name, made)
            link = tarfile.TarInfo(name.lstrip("/"))
            link.type, link.linkname = tarfile.SYMTYPE, target
            tar.addfile(link)
        _folder(tar, "tmp", 0o1777, made)
    return held.getvalue()


def _walk(target: str, source: Path) -> list[tuple[str, Path]]:
    if source.is_dir():
        return [(f"{target}/{f.relative_to(source)}", f) for f in source.rglob("*") if f.is_file()]
    return [(target, source)]


def _parents(tar: tarfile.TarFile, path: str, made: set[str]) -> None:
    for parent in list(PurePosixPath(path.lstrip("/")).parents)[-2::-1]:
        _folder(tar, str(parent), 0o755, made)


def _folder(tar: tarfile.TarFile, path: str, mode: int, made: set[str]) -> None:
    if path in made:
        return
    made.add(path)
    info = tarfile.TarInfo(path)
    info.type, info.mode = tarfile.DIRTYPE, mode
    tar.addfile(info)


def _text(tar: tarfile.TarFile, path: str, text: str, made: set[str]) -> None:
    _parents(tar, path, made)
    info = tarfile.TarInfo(path)
    info.size, info.mode = len(text.encode()), 0o644
    tar.addfile(info, io.BytesIO(text.encode()))


def config(image: SmallImage, diff_id: str, architecture: str) -> dict[str, Any]:
    return {
        "architecture": architecture,
        "os": "linux",
        "config": {
            "User": image.user,
            "Env": ["PATH=/usr/bin:/bin"],
            "Entrypoint": list(image.entrypoint),
            "Cmd": list(image.command),
        },
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
    }


def manifest(config_blob: bytes, layers: Sequence[tuple[str, int]]) -> dict[str, Any]:
    """layers: (digest, bytes) of each uncompressed layer."""
    return {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": {"mediaType": CONFIG_TYPE, "digest": digest(config_blob), "size": len(config_blob)},
        "layers": [{"mediaType": LAYER_TYPE, "digest": one, "size": size} for one, size in layers],
    }


def write_archive(
    path: Path, name: str, config_blob: bytes, layers: Sequence[tuple[str, int]], blobs: Sequence[bytes]
) -> None:
    """An archive of an image under its full name. `blobs` holds the layers' contents; it may be empty where the node
    already has the layers unpacked: containerd then asks for none."""
    manifest_blob = json.dumps(manifest(config_blob, layers)).encode()
    entry = {
        "mediaType": MANIFEST_TYPE,
        "digest": digest(manifest_blob),
        "size": len(manifest_blob),
        "annotations": {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name.rpartition(":")[2]},
    }
    index = json.dumps({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [entry]}).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        made: set[str] = set()
        _text(tar, "oci-layout", '{"imageLayoutVersion": "1.0.0"}', made)
        _blob(tar, "index.json", index)
        for blob in (manifest_blob, config_blob, *blobs):
            _parents(tar, "blobs/sha256/x", made)
            _blob(tar, f"blobs/sha256/{digest(blob).removeprefix('sha256:')}", blob)


def _blob(tar: tarfile.TarFile, path: str, data: bytes) -> None:
    info = tarfile.TarInfo(path)
    info.size, info.mode = len(data), 0o644
    tar.addfile(info, io.BytesIO(data))


def write_small(path: Path, image: SmallImage, architecture: str) -> None:
    """The archive of an image that is given by its files."""
    content = layer(image)
    write_archive(
        path,
        image.name,
        json.dumps(config(image, digest(content), architecture)).encode(),
        [(digest(content), len(content))],
        [content],
    )
