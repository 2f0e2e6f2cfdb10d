"""The node's image store (containerd, namespace k8s.io): what it holds, importing archives."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from dreambooth_local.commands import run


@dataclass(frozen=True)
class NodeImages:
    socket: Path

    def ctr(self, *words: str | Path) -> str:
        return run(["ctr", "-a", self.socket, "-n", "k8s.io", *words], timeout=300)

    def names(self) -> dict[str, str]:
        """Full name -> digest of its manifest."""
        return parse_names(self.ctr("images", "ls"))

    def load(self, archive: Path) -> None:
        """Imports an OCI or Docker archive under the names that it carries, and unpacks it."""
        self.ctr("images", "import", archive)

    def answers(self) -> bool:
        """True once containerd serves."""
        if not self.socket.exists():
            return False
        return bool(run(["sh", "-c", f"ctr -a {self.socket} version >/dev/null 2>&1 && echo yes || true"]).strip())


def parse_names(listing: str) -> dict[str, str]:
    """`ctr images ls`: a header, then REF TYPE DIGEST …"""
    rows = (line.split() for line in listing.splitlines()[1:])
    return {row[0]: row[2] for row in rows if len(row) > 2}


def stale_references(held: Mapping[str, str], used: Collection[str]) -> list[str]:
    """The node's agent names every image a second time, by its id (`sha256:…`), and keeps that name, and with it the
    layers, when the first one goes. Stale are those whose manifest has no other name and from which no pod runs.

    held: reference -> digest of its manifest; used: ids of images.
    """
    named = {manifest for reference, manifest in held.items() if not reference.startswith("sha256:")}
    return [r for r, manifest in held.items() if r.startswith("sha256:") and manifest not in named and r not in used]
