"""Renders the chart with the real helm, once for each set of values."""

import os
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.variants import CHART, NAMESPACE

Render = Callable[..., list[dict[str, Any]]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """These tests need helm, which `make up` builds with the cluster's programs: they run where cluster tests run."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.cluster)


@cache
def _program() -> str:
    """helm: of the PATH, or the one that `make up` builds. Raises RuntimeError when there is none."""
    cached = Path(os.environ.get("DREAMBOOTH_CACHE", "~/.cache/dreambooth")).expanduser() / "bin"
    found = shutil.which("helm") or shutil.which("helm", path=cached)
    if not found:
        raise RuntimeError(f"helm is neither on the PATH nor in {cached}: `make up` builds it")
    return found


@cache
def _helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    # helm compiled from its module takes itself for one of Kubernetes 1.20 where no cluster tells it otherwise.
    environment = {**os.environ, "KUBECONFIG": os.devnull}
    return subprocess.run([_program(), *arguments], capture_output=True, text=True, env=environment, check=False)


def _template(*flags: str, release: str = "dreambooth") -> subprocess.CompletedProcess[str]:
    return _helm("template", release, str(CHART), "--namespace", NAMESPACE, "--kube-version", "1.34.0", *flags)


@pytest.fixture(scope="session")
def render() -> Render:
    """`render("--set", "minio.enabled=true")` → the manifests, hooks and tests included."""

    def manifests(*flags: str, release: str = "dreambooth") -> list[dict[str, Any]]:
        done = _template(*flags, release=release)
        assert done.returncode == 0, done.stderr
        return [m for m in yaml.safe_load_all(done.stdout) if m]

    return manifests


@pytest.fixture(scope="session")
def refusal() -> Callable[..., str]:
    """`refusal("--set", "minio.enabled=yes")` → what helm says about values that it must not take."""

    def text(*flags: str) -> str:
        done = _template(*flags)
        assert done.returncode != 0, f"helm took {flags}"
        return done.stderr

    return text


@pytest.fixture(scope="session")
def helm() -> Callable[..., subprocess.CompletedProcess[str]]:
    """helm itself."""
    return _helm
