"""Least privilege: no wildcards, no Secrets to list, nothing cluster-wide where namespaces are named."""

from typing import Any

import pytest

from tests.chart.variants import NAMESPACE, VARIANTS

pytestmark = pytest.mark.cluster
EXPECTED = {
    "dreambooth.dev/dreamboothjobs": {"get", "list", "watch"},
    "dreambooth.dev/servingpools": {"get", "list", "watch"},
    "dreambooth.dev/personalizedmodels": {"get", "list", "watch", "create", "patch"},
    "dreambooth.dev/dreamboothjobs/status": {"patch"},
    "dreambooth.dev/personalizedmodels/status": {"patch"},
    "dreambooth.dev/servingpools/status": {"patch"},
    "dreambooth.dev/dreamboothjobs/finalizers": {"update"},
    "dreambooth.dev/personalizedmodels/finalizers": {"update"},
    "dreambooth.dev/servingpools/finalizers": {"update"},
    "batch/jobs": {"get", "list", "watch", "create", "patch", "delete"},
    "apps/deployments": {"get", "list", "watch", "create", "patch", "delete"},
    "apps/deployments/scale": {"patch"},
    "autoscaling/horizontalpodautoscalers": {"get", "list", "watch", "create", "patch", "delete"},
    "policy/poddisruptionbudgets": {"get", "list", "watch", "create", "patch", "delete"},
    "/services": {"get", "list", "watch", "create", "patch", "delete"},
    "/pods": {"list", "watch"},
    "/secrets": {"get"},
    "/persistentvolumeclaims": {"get"},
    "/configmaps": {"get"},
    "/events": {"create", "list"},
}


def _roles(manifests: list[dict[str, Any]], kind: str) -> dict[tuple[str, str], dict[str, set[str]]]:
    """(namespace, name) → group/resource → verbs."""
    found: dict[tuple[str, str], dict[str, set[str]]] = {}
    for manifest in manifests:
        if manifest["kind"] == kind:
            verbs = found.setdefault((manifest["metadata"].get("namespace", ""), manifest["metadata"]["name"]), {})
            for rule in manifest["rules"]:
                for group in rule["apiGroups"]:
                    for resource in rule["resources"]:
                        verbs.setdefault(f"{group}/{resource}", set()).update(rule["verbs"])
    return found


def test_the_operator_has_exactly_what_it_needs(render):
    assert _roles(render(), "ClusterRole")["", "dreambooth-operator"] == EXPECTED


def test_the_operator_sees_the_nodes_heartbeats_and_nothing_else_of_nodes(render):
    role = _roles(render(), "Role")["kube-node-lease", "dreambooth-operator-nodes"]
    assert role == {"coordination.k8s.io/leases": {"list", "watch"}}


def test_with_namespaces_the_operator_has_nothing_cluster_wide(render):
    manifests = render(*VARIANTS["namespaced"])
    roles = _roles(manifests, "Role")
    lease = roles.pop((NAMESPACE, "dreambooth-operator-lease"))
    assert lease == {"coordination.k8s.io/leases": {"create", "get", "update"}}
    assert roles == {("a", "dreambooth-operator"): EXPECTED, ("b", "dreambooth-operator"): EXPECTED}
    assert set(_roles(manifests, "ClusterRole")) == {
        ("", "dreambooth-view"), ("", "dreambooth-edit"), ("", "dreambooth-admin"),
    }  # fmt: skip
    assert not [m for m in manifests if m["kind"] == "ClusterRoleBinding"]
    (operator,) = [m for m in manifests if (m["kind"], m["metadata"]["name"]) == ("Deployment", "dreambooth-operator")]
    (container,) = operator["spec"]["template"]["spec"]["containers"]
    assert {"name": "DREAMBOOTH_NAMESPACES", "value": "a,b"} in container["env"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_role_has_a_wildcard_or_reads_all_secrets(render, variant):
    manifests = render(*VARIANTS[variant])
    for kind in ("Role", "ClusterRole"):
        for name, verbs in _roles(manifests, kind).items():
            for resource, allowed in verbs.items():
                assert "*" not in resource, name
                assert "*" not in allowed, name
                assert not {"escalate", "bind", "impersonate"} & allowed, name
            assert verbs.get("/secrets", set()) <= {"get"}, name


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_binding_is_to_a_role_and_an_account_that_exist(render, variant):
    manifests = render(*VARIANTS[variant])
    accounts = {m["metadata"]["name"] for m in manifests if m["kind"] == "ServiceAccount"}
    for binding in (m for m in manifests if m["kind"].endswith("Binding")):
        role = binding["roleRef"]
        namespace = binding["metadata"].get("namespace", "") if role["kind"] == "Role" else ""
        assert (namespace, role["name"]) in _roles(manifests, role["kind"])
        assert {subject["name"] for subject in binding["subjects"]} <= accounts


def test_the_operator_touches_one_lease_and_no_other(render):
    (role,) = [m for m in render() if m["kind"] == "Role" and m["metadata"]["name"] == "dreambooth-operator-lease"]
    assert role["metadata"]["namespace"] == NAMESPACE
    named = [rule for rule in role["rules"] if rule["verbs"] != ["create"]]
    assert [rule["resourceNames"] for rule in named] == [["dreambooth-operator"]]


def test_view_reads_and_edit_writes_both_kinds(render):
    roles = _roles(render(), "ClusterRole")
    view, edit = roles["", "dreambooth-view"], roles["", "dreambooth-edit"]
    for kind in ("dreamboothjobs", "personalizedmodels"):
        assert view[f"dreambooth.dev/{kind}"] == {"get", "list", "watch"}
        assert {"create", "patch", "delete"} <= edit[f"dreambooth.dev/{kind}"]
        assert f"dreambooth.dev/{kind}/status" not in edit


def test_pools_are_everybodys_to_see_and_administrators_to_make(render):
    manifests = render()
    roles = _roles(manifests, "ClusterRole")
    assert roles["", "dreambooth-view"]["dreambooth.dev/servingpools"] == {"get", "list", "watch"}
    assert "dreambooth.dev/servingpools" not in roles["", "dreambooth-edit"]
    assert {"create", "patch", "delete"} <= roles["", "dreambooth-admin"]["dreambooth.dev/servingpools"]
    (admin,) = [m for m in manifests if (m["kind"], m["metadata"]["name"]) == ("ClusterRole", "dreambooth-admin")]
    told = {key for key in admin["metadata"]["labels"] if key.startswith("rbac.authorization.k8s.io/")}
    assert told == {"rbac.authorization.k8s.io/aggregate-to-admin"}
