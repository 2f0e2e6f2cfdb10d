"""kubectl and helm as functions: one cluster, its kubeconfig, and errors that carry what the program said."""

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class KubeError(RuntimeError):
    """kubectl or helm ended with an error; the text is its own."""


@dataclass(frozen=True)
class Kube:
    """A cluster by its kubeconfig. `local`: the one of `dreambooth_local`, with images of the present sources."""

    kubeconfig: Path
    local: bool = False

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout: float = 300) -> str:
        """What kubectl prints. Raises KubeError."""
        return self._run(["kubectl", *arguments], stdin, timeout)

    def helm(self, *arguments: str, timeout: float = 600) -> str:
        """What helm prints. Raises KubeError."""
        return self._run(["helm", *arguments], None, timeout)

    def get(self, kind: str, name: str, namespace: str) -> dict[str, Any] | None:
        """A resource, or None when it is not there."""
        text = self.kubectl("get", kind, name, "-n", namespace, "-o", "json", "--ignore-not-found")
        return json.loads(text) if text else None

    def list(self, kind: str, *arguments: str) -> list[dict[str, Any]]:
        """All resources of a kind that `arguments` (e.g. `-n demo`) select."""
        return json.loads(self.kubectl("get", kind, *arguments, "-o", "json"))["items"]

    def apply(self, *resources: dict[str, Any]) -> None:
        """Apply resources."""
        self.kubectl("apply", "-f", "-", stdin="\n---\n".join(json.dumps(r) for r in resources))

    def _run(self, command: Sequence[str], stdin: str | None, timeout: float) -> str:
        environment = {**os.environ, "KUBECONFIG": str(self.kubeconfig)}
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, timeout=timeout, env=environment, check=False
        )
        if done.returncode:
            raise KubeError(f"{' '.join(command[:4])}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout
