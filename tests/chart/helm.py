"""The real helm, and what it makes of the chart: once for each set of values."""

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.chart.variants import CHART, NAMESPACE


@cache
def _program() -> str:
    """helm: of the PATH, or the one that `make up` builds. Raises RuntimeError when there is none."""
    cached = Path(os.environ.get("DREAMBOOTH_CACHE", "~/.cache/dreambooth")).expanduser() / "bin"
    found = shutil.which("helm") or shutil.which("helm", path=cached)
    if not found:
        raise RuntimeError(f"helm is neither on the PATH nor in {cached}: `make up` builds it")
    return found


@cache
def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`helm ARGUMENTS`, however it ends."""
    # helm compiled from its module takes itself for one of Kubernetes 1.20 where no cluster tells it otherwise.
    environment = {**os.environ, "KUBECONFIG": os.devnull}
    return subprocess.run([_program(), *arguments], capture_output=True, text=True, env=environment, check=False)


def template(*flags: str, release: str = "dreambooth") -> subprocess.CompletedProcess[str]:
    """`helm template` of the chart with `flags`."""
    return helm("template", release, str(CHART), "--namespace", NAMESPACE, "--kube-version", "1.34.0", *flags)


def manifests(*flags: str, release: str = "dreambooth") -> list[dict[str, Any]]:
    """The chart's manifests, hooks and tests included."""
    done = template(*flags, release=release)
    assert done.returncode == 0, done.stderr
    return [m for m in yaml.safe_load_all(done.stdout) if m]
