"""buildah, with a store of its own in the cache: the base image, which no registry is asked for, and our targets."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from dreambooth_local.commands import CommandFailed, run
from dreambooth_local.places import Places

BASE_IMAGE = "docker.io/library/python:3.11-slim-bookworm"
SUITE = "bookworm"
SOURCES = ("Dockerfile", ".dockerignore", "pyproject.toml", "requirements.lock", "README.md", "LICENSE")
SOURCE_FOLDERS = ("crds", "operator", "trainer", "server")


@dataclass(frozen=True)
class Builder:
    """Images below `where.images`; what the builder says goes to `log`."""

    where: Places
    log: Path

    @property
    def storage(self) -> Path:
        return self.where.images / "storage"

    def buildah(self, *words: str | Path, quiet: bool = False) -> str:
        """Raises CommandFailed. With `quiet` the output is returned and not logged."""
        stores = ("--root", self.storage, "--runroot", self.where.run / "buildah", "--storage-driver", "overlay")
        return run(["buildah", *stores, *words], log=None if quiet else self.log)

    def holds(self, name: str) -> bool:
        try:
            self.buildah("inspect", "--type", "image", "--format", "{{.FromImageID}}", name, quiet=True)
        except CommandFailed:
            return False
        return True

    def base_image(self) -> str:
        """Debian with Python under the public base image's name, so that the Dockerfile stays what anyone builds."""
        if self.holds(BASE_IMAGE):
            return "cached"
        self.where.images.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.where.images, prefix=".base-") as folder:
            root = Path(folder) / "root"
            packages = "python3,python3-venv,ca-certificates"
            run(["mmdebstrap", "--variant=minbase", f"--include={packages}", SUITE, root], log=self.log)
            for name in ("python", "python3"):  # where the public image has them
                (root / "usr/local/bin" / name).symlink_to("/usr/bin/python3")
            container = self.buildah("from", "scratch", quiet=True).strip()
            self.buildah("add", "-q", container, root, "/")
            self.buildah("config", "--env", "PATH=/usr/local/bin:/usr/bin:/bin", container)
            self.buildah("commit", "-q", "--rm", container, BASE_IMAGE)
            shutil.rmtree(root)
        return "made"

    def build(self, target: str, tags: Iterable[str], context: Path) -> None:
        """One target of the Dockerfile. Wheels come through uv's own cache, which the virtual environment filled and no
        layer keeps."""
        wheels = wheel_cache(os.environ)
        wheels.mkdir(parents=True, exist_ok=True)
        self.buildah(
            "bud", "--isolation", "chroot", "--network", "host", "--layers", "--pull-never", "--target", target,
            *(word for tag in tags for word in ("-t", tag)),
            "-v", "/etc/ssl/certs:/etc/ssl/certs:ro", "-v", f"{wheels}:/root/.cache/uv",
            "--build-arg", "UV_NO_CACHE=false", "--build-arg", "TORCH_EXTRAS=", context,
        )  # fmt: skip

    def forget(self, kept: Iterable[str]) -> None:
        """Removes our images of older sources, and layers that no image needs."""
        names = self.buildah("images", "--format", "{{.Name}}:{{.Tag}}", quiet=True).split()
        ours = {name for name in names if name.startswith("docker.io/dreambooth/")}
        for name in sorted(ours.difference(kept)):
            self.buildah("rmi", name)
        # Working containers of builds that were cut short hold layers; nothing else uses this store.
        self.buildah("rm", "--all")
        self.buildah("rmi", "--prune")


def wheel_cache(environ: Mapping[str, str]) -> Path:
    """Where uv keeps wheels on this machine."""
    home = Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(environ.get("UV_CACHE_DIR") or home / "uv")


def source_hash(context: Path) -> str:
    """8 hex digits over all that the images are made of."""
    found = hashlib.sha256()
    files = [context / name for name in SOURCES]
    for folder in SOURCE_FOLDERS:
        files += sorted(p for p in (context / folder).rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    for file in files:
        found.update(f"{file.relative_to(context)}\0".encode() + file.read_bytes() + b"\0")
    return found.hexdigest()[:8]
