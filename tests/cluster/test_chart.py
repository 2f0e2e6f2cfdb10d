"""The chart as it is installed: `helm test`, an upgrade that keeps keys, and rights that are what they should be."""

import base64
from pathlib import Path

import pytest

from dreambooth_api import names
from dreambooth_demo.kube import Kube, KubeError
from dreambooth_demo.platform import NAMESPACE, RELEASE

CHART = Path(__file__).parents[2] / "charts/dreambooth"
OPERATOR = f"system:serviceaccount:{NAMESPACE}:{RELEASE}-operator"


def _can(kube: Kube, who: str, *what: str) -> bool:
    """Whether `who` may do it; kubectl ends with an error on a "no"."""
    try:
        return kube.kubectl("auth", "can-i", *what, f"--as={who}").strip() == "yes"
    except KubeError:
        return False


def _keys(kube: Kube, namespace: str, name: str) -> dict[str, str]:
    secret = kube.get("secret", name, namespace)
    assert secret is not None
    return {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}


def test_helm_s_own_test_passes(kube, shared_namespace):
    assert "Phase:          Succeeded" in kube.helm("test", RELEASE, "--namespace", NAMESPACE, "--timeout", "5m")


def test_an_upgrade_keeps_the_keys_that_were_made(kube, shared_namespace):
    def keys() -> list[dict[str, str]]:
        made = [_keys(kube, NAMESPACE, f"{RELEASE}-{part}") for part in ("minio", "gateway")]
        return [*made, _keys(kube, shared_namespace, names.STORE_SECRET)]

    before = keys()
    kube.helm("upgrade", RELEASE, str(CHART), "--namespace", NAMESPACE, "--reuse-values", "--wait", "--timeout", "5m")
    assert keys() == before


def test_the_platform_runs_under_pod_security_restricted(kube, shared_namespace):
    for name in (NAMESPACE, shared_namespace):
        namespace = kube.get("namespace", name, "default")
        assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert len(kube.list("pods", "-n", NAMESPACE, "--field-selector=status.phase=Running")) >= 4


@pytest.mark.parametrize(
    ("what", "allowed"),
    [
        (("list", "dreamboothjobs"), True),
        (("create", "jobs.batch"), True),
        (("create", "pods"), False),
        (("get", "secrets"), True),
        (("list", "secrets"), False),
        (("create", "secrets"), False),
        (("delete", "dreamboothjobs"), False),
        (("create", "roles"), False),
        (("list", "nodes"), False),
        (("create", "pods/exec"), False),
    ],
)
def test_the_operator_may_do_what_it_must_and_no_more(kube, shared_namespace, what, allowed):
    assert _can(kube, OPERATOR, *what, "-n", shared_namespace) is allowed


def test_the_gateway_may_do_nothing_at_the_api_server(kube, shared_namespace):
    gateway = f"system:serviceaccount:{NAMESPACE}:{RELEASE}-gateway"
    for what in (("get", "pods"), ("get", "secrets"), ("list", names.MODEL_PLURAL), ("create", "events")):
        assert not _can(kube, gateway, *what, "-n", shared_namespace)


def test_view_and_edit_cover_jobs_and_models_and_admin_pools(cluster):
    for role in ("view", "edit", "admin"):
        user = f"--user={role}er"
        cluster.kubectl("create", "rolebinding", role, f"--clusterrole={role}", user)
    for kind in (names.JOB_PLURAL, names.MODEL_PLURAL):
        assert _can(cluster.kube, "viewer", "get", kind, "-n", cluster.namespace)
        assert not _can(cluster.kube, "viewer", "create", kind, "-n", cluster.namespace)
        assert _can(cluster.kube, "editer", "create", kind, "-n", cluster.namespace)
        assert _can(cluster.kube, "editer", "delete", kind, "-n", cluster.namespace)
        assert not _can(cluster.kube, "editer", "patch", kind, "--subresource=status", "-n", cluster.namespace)
    assert _can(cluster.kube, "viewer", "get", names.POOL_PLURAL, "-n", cluster.namespace)
    assert not _can(cluster.kube, "editer", "create", names.POOL_PLURAL, "-n", cluster.namespace)
    assert _can(cluster.kube, "adminer", "create", names.POOL_PLURAL, "-n", cluster.namespace)
