"""Installs the chart, after making sure that nobody else's is there."""

from pathlib import Path
from typing import Any

from dreambooth_api import names
from dreambooth_demo.kube import Kube, KubeError
from dreambooth_local.images import image_values

RELEASE = "dreambooth"
NAMESPACE = "dreambooth-system"
# The namespace that `make demo` and `make test` made carries this; without it the release belongs to somebody else.
OWNER_LABEL = f"{names.GROUP}/installed-by"
OWNER = "make"
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


class ForeignInstallation(RuntimeError):
    """The cluster holds a release or CRDs that we did not install."""


def namespace_manifest(name: str, **labels: str) -> dict[str, Any]:
    """A namespace under Pod Security *restricted*."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {**RESTRICTED, **labels}}}


def foreign_parts(namespace: dict[str, Any] | None, definitions: list[dict[str, Any]]) -> list[str]:
    """What on the cluster is not ours, in words; empty when it is safe to install. Pure.

    `namespace` is the platform's as it is now, `definitions` are the cluster's CRDs of our group.
    """
    ours = namespace is not None and namespace["metadata"].get("labels", {}).get(OWNER_LABEL) == OWNER
    found = [f"namespace {NAMESPACE} exists and was not made by `make`"] if namespace is not None and not ours else []
    for definition in definitions:
        annotations = definition["metadata"].get("annotations", {})
        owner = (annotations.get("meta.helm.sh/release-namespace"), annotations.get("meta.helm.sh/release-name"))
        if owner != (NAMESPACE, RELEASE):
            found.append(f"CRD {definition['metadata']['name']} belongs to {'/'.join(o or '?' for o in owner)}")
    return found


def counts_requests(api_service: dict[str, Any] | None) -> bool:
    """Whether autoscalers can ask for requests in flight: by the adapter that `dreambooth_local` made. Pure.

    `api_service` is the cluster's external metrics API: another one there would not know our series.
    """
    served = {"namespace": "kube-system", "name": "prometheus-adapter"}
    found = ((api_service or {}).get("spec", {}).get("service") or {}).items()
    return served.items() <= found


def check_not_foreign(kube: Kube) -> None:
    """Raise ForeignInstallation when the chart's release or CRDs of another owner are on the cluster."""
    crds = [d for d in kube.list("crd") if d["spec"]["group"] == names.GROUP]
    if found := foreign_parts(kube.get("namespace", NAMESPACE, "default"), crds):
        raise ForeignInstallation("this cluster has a DreamBooth installation of its own: " + "; ".join(found))


def install(kube: Kube, chart: Path, namespaces: list[str]) -> None:
    """helm upgrade --install with the demo's values, waiting until every Deployment is available.

    Each of `namespaces` gets the Secret `dreambooth-store` of the bundled store.
    """
    check_not_foreign(kube)
    kube.apply(namespace_manifest(NAMESPACE, **{OWNER_LABEL: OWNER}))
    values = image_values() if kube.local else {}
    settings = [f"store.namespaces={{{','.join(namespaces)}}}", *(f"{key}={value}" for key, value in values.items())]
    flags = [word for setting in settings for word in ("--set-string", setting)]
    if counts_requests(kube.get("apiservice", "v1beta1.external.metrics.k8s.io", "default")):
        flags += ["--set", "metricsApi.enabled=true"]
    try:
        kube.helm(
            "upgrade", "--install", RELEASE, str(chart), "--namespace", NAMESPACE,
            "--values", str(chart / "values-demo.yaml"), *flags, "--wait", "--timeout", "5m",
        )  # fmt: skip
    except KubeError as e:
        pods = kube.kubectl("get", "pods", "-n", NAMESPACE, "-o", "wide")
        raise KubeError(f"{e}\n{pods}") from e
