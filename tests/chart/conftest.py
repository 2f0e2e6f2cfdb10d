"""Renders the chart with the real helm, once for each set of values."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.chart.helm import helm as helm_program
from tests.chart.helm import manifests, template

Render = Callable[..., list[dict[str, Any]]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """These tests need helm, which `make up` builds with the cluster's programs: they run where cluster tests run."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.cluster)


@pytest.fixture(scope="session")
def render() -> Render:
    """`render("--set", "minio.enabled=true")` → the manifests, hooks and tests included."""
    return manifests


@pytest.fixture(scope="session")
def refusal() -> Callable[..., str]:
    """`refusal("--set", "minio.enabled=yes")` → what helm says about values that it must not take."""

    def text(*flags: str) -> str:
        done = template(*flags)
        assert done.returncode != 0, f"helm took {flags}"
        return done.stderr

    return text


@pytest.fixture(scope="session")
def helm() -> Callable[..., subprocess.CompletedProcess[str]]:
    """helm itself."""
    return helm_program
