"""The API server, asked with the standard library: fast enough to tell a healthy cluster in a few milliseconds."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreambooth_local.places import API_PORT


class Unreachable(Exception):
    """The API server does not answer, or not with 200."""


@dataclass(frozen=True)
class Api:
    """Reads as the cluster's administrator."""

    pki: Path

    def text(self, path: str, seconds: float = 5.0) -> str:
        """Raises Unreachable."""
        try:
            context = ssl.create_default_context(cafile=str(self.pki / "ca.crt"))
            context.load_cert_chain(self.pki / "admin.crt", self.pki / "admin.key")
            opener = urllib.request.build_opener(
                urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
            )
            with opener.open(f"https://127.0.0.1:{API_PORT}{path}", timeout=seconds) as answer:
                return answer.read().decode()
        except (OSError, urllib.error.URLError) as error:
            raise Unreachable(f"{path}: {error}") from error

    def json(self, path: str) -> dict[str, Any]:
        """Raises Unreachable."""
        return json.loads(self.text(path))

    def answers(self, path: str = "/readyz") -> bool:
        try:
            self.text(path, seconds=2.0)
        except Unreachable:
            return False
        return True
