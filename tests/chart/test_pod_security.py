"""Every pod of every variant passes Pod Security "restricted", and more: a read-only root, no API credentials."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.chart.variants import VARIANTS

pytestmark = pytest.mark.cluster
# https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted
VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}


def pods(manifests: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, pod spec) of every pod that the manifests make."""
    for manifest in manifests:
        name = f"{manifest['kind']}/{manifest['metadata']['name']}"
        if manifest["kind"] == "Pod":
            yield name, manifest["spec"]
        elif "template" in manifest.get("spec", {}):
            yield name, manifest["spec"]["template"]["spec"]


def faults(pod: dict[str, Any]) -> Iterator[str]:
    """What of "restricted" a pod spec breaks."""
    if any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")):
        yield "host namespaces"
    for volume in pod.get("volumes", []):
        if kinds := set(volume) - {"name"} - VOLUMES:
            yield f"volume {kinds}"
    for container in [*pod.get("initContainers", []), *pod["containers"]]:
        security = {**pod.get("securityContext", {}), **container.get("securityContext", {})}
        if security.get("runAsNonRoot") is not True or security.get("runAsUser") == 0:
            yield f"{container['name']} may be root"
        if security.get("allowPrivilegeEscalation") is not False or security.get("privileged"):
            yield f"{container['name']} may escalate"
        if security.get("capabilities") != {"drop": ["ALL"]}:
            yield f"{container['name']} has capabilities"
        if security.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
            yield f"{container['name']} has no seccomp profile"
        if any(port.get("hostPort") for port in container.get("ports", [])):
            yield f"{container['name']} takes a port of the host"


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_pod_is_restricted(render, variant):
    found = dict(pods(render(*VARIANTS[variant])))
    assert "Deployment/dreambooth-operator" in found
    assert {name: list(faults(pod)) for name, pod in found.items() if list(faults(pod))} == {}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_container_has_a_read_only_root_and_bounds(render, variant):
    for name, pod in pods(render(*VARIANTS[variant])):
        for container in pod["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True, name
            assert {"cpu", "memory"} <= set(container["resources"]["requests"]), name
            assert "memory" in container["resources"]["limits"], name
            assert not container["image"].endswith(":latest"), name


@pytest.mark.parametrize("variant", VARIANTS)
def test_only_the_operator_holds_api_credentials(render, variant):
    for name, pod in pods(render(*VARIANTS[variant])):
        assert pod.get("automountServiceAccountToken", True) is (name == "Deployment/dreambooth-operator"), name


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_server_says_when_it_is_ready(render, variant):
    for manifest in render(*VARIANTS[variant]):
        if manifest["kind"] == "Deployment":
            (container,) = manifest["spec"]["template"]["spec"]["containers"]
            assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container), manifest["metadata"]["name"]


def test_ids_can_be_left_to_the_cluster(render):
    flags = ("--set", "podSecurity.runAsUser=null,podSecurity.runAsGroup=null,podSecurity.fsGroup=null")
    for _, pod in pods(render(*VARIANTS["demo"], *flags)):
        assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
        assert list(faults(pod)) == []


def test_the_rules_refuse_what_is_not_restricted():
    """The checker itself, on a pod that breaks everything."""
    bad = {
        "hostNetwork": True, "volumes": [{"name": "root", "hostPath": {"path": "/"}}],
        "containers": [{"name": "x", "securityContext": {"privileged": True}, "ports": [{"hostPort": 80}]}],
    }  # fmt: skip
    assert len(list(faults(bad))) == 7
