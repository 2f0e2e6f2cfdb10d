"""With networkPolicy.enabled: who reaches what."""

from typing import Any

import pytest

from tests.chart.variants import DEMO

pytestmark = pytest.mark.cluster
ON = (*DEMO, "--set", "networkPolicy.enabled=true")


def _policies(manifests: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (m["metadata"]["namespace"], m["metadata"]["name"]): m["spec"]
        for m in manifests
        if m["kind"] == "NetworkPolicy"
    }


def test_none_unless_asked_for(render):
    assert _policies(render(*DEMO)) == {}


def test_each_server_takes_its_ports_from_the_platform_and_its_pods_only(render):
    policies = _policies(render(*ON))
    system = "dreambooth-system"
    assert set(policies) == {
        (system, "dreambooth-operator"), (system, "dreambooth-minio"), (system, "dreambooth-mlflow"),
        (system, "dreambooth-prometheus"), ("demo", "dreambooth-jobs"),
    }  # fmt: skip
    (rule,) = policies[system, "dreambooth-minio"]["ingress"]
    assert {p["port"] for p in rule["ports"]} == {9000, 9001}
    own, workers = rule["from"]
    assert own == {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": system}}}
    assert workers["podSelector"]["matchLabels"] == {"app.kubernetes.io/managed-by": "dreambooth-operator"}


def test_ranks_hear_only_ranks_of_their_namespace(render):
    among, metrics = _policies(render(*ON))["demo", "dreambooth-jobs"]["ingress"]
    assert among["from"][0]["podSelector"]["matchLabels"]["dreambooth.dev/component"] == "train"
    assert "namespaceSelector" not in among["from"][0]
    assert [p["port"] for p in metrics["ports"]] == [9400]


def test_an_administrator_opens_them_to_others(render):
    opened = '[{"namespaceSelector":{"matchLabels":{"kubernetes.io/metadata.name":"ingress"}}}]'
    policies = _policies(render(*ON, "--set-json", f"networkPolicy.allowFrom={opened}"))
    assert len(policies["dreambooth-system", "dreambooth-mlflow"]["ingress"][0]["from"]) == 3
