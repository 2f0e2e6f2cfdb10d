"""Order of the whole run, and the one real cluster of all cluster tests.

That is the one of KUBECONFIG, a local one that runs already, or one brought up. What was brought up is taken down at
the end; on a cluster that was there, only the tests' namespaces come and go.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dreambooth_demo.kube import Kube
from dreambooth_local import programs
from dreambooth_local.places import places


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Fast tests, then cluster tests, then those that kill the cluster; otherwise the order stays."""

    def stage(item: pytest.Item) -> int:
        return 2 if item.get_closest_marker("local_lifecycle") else 1 if item.get_closest_marker("cluster") else 0

    items.sort(key=stage)
    for item in items:
        if isinstance(item, pytest.Function) and item.get_closest_marker("cluster"):
            # First of all: programs that such tests call (helm) are there once the cluster is.
            item.fixturenames.insert(0, "kube")


@pytest.fixture(scope="session")
def s3_programs() -> dict[str, Path]:
    """Name -> program of MinIO and versitygw, compiled if need be (minutes, once per machine)."""
    where = places(os.environ)
    for program in (programs.STORE, programs.OTHER_STORE):
        programs.ensure(where, [program], where.logs / "compile.log")
    return programs.paths(where)


def _local(command: str) -> None:
    subprocess.run([sys.executable, "-m", "dreambooth_local", command], check=True)


@pytest.fixture(scope="session")
def found_running() -> bool:
    """Whether there was a local cluster before the tests began, well or not: a moment's complaint (DNS under load) must
    never make the tests take away what is someone's."""
    return places(os.environ).kubeconfig.exists()


@pytest.fixture(scope="session")
def kube(request: pytest.FixtureRequest) -> Iterator[Kube]:
    """The cluster, bare."""
    if given := os.environ.get("KUBECONFIG"):
        yield Kube(Path(given.split(":")[0]))
        return
    found = request.getfixturevalue("found_running")
    # Also for one that runs: `up` is idempotent, and brings images of the present code.
    _local("up")
    try:
        yield Kube(places(os.environ).kubeconfig, local=True)
    finally:
        if not found:
            _local("down")
