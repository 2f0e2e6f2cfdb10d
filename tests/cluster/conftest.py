"""What cluster tests share: namespaces, the platform, one trained subject. `kube` is in tests/conftest.py."""

import base64
import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from dreambooth_api import names
from dreambooth_demo import platform
from dreambooth_demo.access import model_url, service_url
from dreambooth_demo.kube import Kube
from dreambooth_demo.store import open_store, upload_examples
from dreambooth_demo.watch import wait_for_job, wait_for_model

ROOT = Path(__file__).parents[2]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder is a cluster test."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.cluster)


def _make_namespace(kube: Kube) -> str:
    name = f"test-{secrets.token_hex(4)}"
    kube.apply(platform.namespace_manifest(name))
    return name


def _delete_namespace(kube: Kube, name: str) -> None:
    """Without waiting: a pod that serves takes its time to end, and no test looks into another's namespace."""
    if not kube.kubeconfig.exists() or kube.get("namespace", name, name) is None:
        return  # it went with the cluster: tests/local/test_lifecycle.py
    kube.kubectl("delete", "dreamboothjobs,personalizedmodels,servingpools", "--all", "-n", name, "--wait=false")
    kube.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="session")
def shared_namespace(kube: Kube) -> Iterator[str]:
    """The platform is installed, and this namespace has a store."""
    platform.check_not_foreign(kube)
    name = _make_namespace(kube)
    kept = [
        s["metadata"]["namespace"]
        for s in kube.list("secrets", "-A", f"--field-selector=metadata.name={names.STORE_SECRET}")
    ]
    platform.install(kube, ROOT / "charts/dreambooth", [name, *kept])
    store, bucket = open_store(kube, name)
    upload_examples(store, bucket, ROOT / "examples")
    yield name
    _delete_namespace(kube, name)


@dataclass(frozen=True)
class Cluster:
    """The cluster as one test sees it: a namespace of its own, with a store."""

    kube: Kube
    namespace: str

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """kubectl in this namespace. Raises KubeError with what kubectl said."""
        return self.kube.kubectl("-n", self.namespace, *arguments, stdin=stdin)

    def apply(self, *resources: dict[str, Any]) -> None:
        """kubectl apply in this namespace."""
        self.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(resources))

    def get(self, kind: str, name: str) -> dict[str, Any] | None:
        """A resource, or None."""
        return self.kube.get(kind, name, self.namespace)

    def list(self, kind: str, *arguments: str) -> list[dict[str, Any]]:
        """All resources of a kind."""
        return self.kube.list(kind, "-n", self.namespace, *arguments)

    def url(self, service: str) -> str:
        """Where this machine reaches a Service."""
        return service_url(self.kube, self.namespace, service)


@contextmanager
def _store_namespace(kube: Kube, shared_namespace: str) -> Iterator[str]:
    """A namespace with the Secret of the store, for as long as it is needed."""
    name = _make_namespace(kube)
    secret = kube.get("secret", names.STORE_SECRET, shared_namespace)
    assert secret is not None
    kube.apply({
        "apiVersion": "v1", "kind": "Secret", "data": secret["data"],
        "metadata": {"name": names.STORE_SECRET, "namespace": name},
    })  # fmt: skip
    try:
        yield name
    finally:
        _delete_namespace(kube, name)


@pytest.fixture
def namespace(kube: Kube, shared_namespace: str) -> Iterator[str]:
    """A namespace for one test, with the Secret of the store."""
    with _store_namespace(kube, shared_namespace) as name:
        yield name


@pytest.fixture(scope="module")
def module_cluster(kube: Kube, shared_namespace: str) -> Iterator[Cluster]:
    """The cluster, with a namespace for a file's tests, of which later ones build on what earlier ones made."""
    with _store_namespace(kube, shared_namespace) as name:
        yield Cluster(kube, name)


@pytest.fixture
def cluster(kube: Kube, namespace: str) -> Cluster:
    """The cluster, with a namespace for this test alone."""
    return Cluster(kube, namespace)


@pytest.fixture
def example_job() -> dict[str, Any]:
    """examples/robot/job.yaml, to be changed by a test."""
    return yaml.safe_load((ROOT / "examples/robot/job.yaml").read_text())


@dataclass(frozen=True)
class Trained:
    """The example's job, run once for all tests that look at its result."""

    kube: Kube
    namespace: str
    job: dict[str, Any]
    model: dict[str, Any]
    bucket: str

    @property
    def status(self) -> dict[str, Any]:
        """The job's status."""
        return self.job["status"]

    @property
    def endpoint(self) -> str:
        """Where this machine reaches the endpoint: at the gateway."""
        return model_url(self.kube, self.namespace, self.model["metadata"]["name"])

    def secret(self, key: str) -> str:
        """A value of the namespace's store Secret."""
        secret = self.kube.get("secret", names.STORE_SECRET, self.namespace)
        assert secret is not None
        return base64.b64decode(secret["data"][key]).decode()


@pytest.fixture(scope="session")
def trained(kube: Kube, shared_namespace: str) -> Trained:
    """examples/robot/job.yaml, applied and waited for: trained by two pods, published, served."""
    text = (ROOT / "examples/robot/job.yaml").read_text()
    job = yaml.safe_load(text)
    name, model = job["metadata"]["name"], job["spec"]["publish"]["name"]
    kube.kubectl("apply", "-n", shared_namespace, "-f", "-", stdin=text)
    wait_for_job(kube, shared_namespace, name, print, seconds=900)
    ready = wait_for_model(kube, shared_namespace, model, print, seconds=300)
    finished = kube.get("dreamboothjob", name, shared_namespace)
    assert finished is not None, json.dumps(job)
    return Trained(kube, shared_namespace, finished, ready, open_store(kube, shared_namespace)[1])
