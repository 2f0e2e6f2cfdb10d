"""With networkPolicy.enabled: who reaches what."""

from typing import Any

import pytest

from tests.chart.variants import DEMO

pytestmark = pytest.mark.cluster
SERVERS = {
    "matchLabels": {"app.kubernetes.io/managed-by": "dreambooth-operator"},
    "matchExpressions": [{"key": "dreambooth.dev/component", "operator": "In", "values": ["server", "canary"]}],
}
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
        (system, "dreambooth-prometheus"), (system, "dreambooth-gateway"), ("demo", "dreambooth-jobs"),
        ("demo", "dreambooth-replicas"),
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


def _components(peers: list[dict[str, Any]]) -> set[str]:
    """Parts of the chart that a rule names, each in the release's namespace."""
    for peer in peers:
        namespaces = peer.get("namespaceSelector", {}).get("matchLabels", {})
        assert namespaces in ({}, {"kubernetes.io/metadata.name": "dreambooth-system"})
        assert namespaces or "namespaceSelector" not in peer
    return {peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"] for peer in peers}


def test_nobody_goes_round_the_gateway_which_checks_the_keys(render):
    policies = _policies(render(*ON))
    replicas = policies["demo", "dreambooth-replicas"]
    assert replicas["podSelector"] == SERVERS
    (rule,) = replicas["ingress"]
    assert [p["port"] for p in rule["ports"]] == [8080]
    assert _components(rule["from"]) == {"gateway", "operator", "prometheus"}
    (*_, routes) = policies["dreambooth-system", "dreambooth-operator"]["ingress"]
    assert ([p["port"] for p in routes["ports"]], _components(routes["from"])) == ([9402], {"gateway"})


def test_without_a_gateway_clients_reach_replicas(render):
    policies = _policies(render(*ON, "--set", "gateway.enabled=false"))
    assert not [name for _, name in policies if name in ("dreambooth-gateway", "dreambooth-replicas")]


def test_a_gateway_takes_requests_from_everybody_and_connects_to_its_own_alone(render):
    def egress(*flags):
        return _policies(render(*ON, *flags))["dreambooth-system", "dreambooth-gateway"]["egress"]

    policy = _policies(render(*ON))["dreambooth-system", "dreambooth-gateway"]
    clients, metrics = policy["ingress"]
    assert clients == {"ports": [{"port": 8080}]}
    assert ([p["port"] for p in metrics["ports"]], _components(metrics["from"])) == ([9403], {"prometheus"})
    dns, operator, replicas = egress()
    assert {p["port"] for p in dns["ports"]} == {53}
    assert ([p["port"] for p in operator["ports"]], _components(operator["to"])) == ([9402], {"operator"})
    assert [p["port"] for p in replicas["ports"]] == [8080]
    assert replicas["to"] == [{"namespaceSelector": {}, "podSelector": SERVERS}]
    check = '[{"namespaceSelector":{"matchLabels":{"kubernetes.io/metadata.name":"checks"}}}]'
    assert "to" in egress("--set-json", f"networkPolicy.gatewayTo={check}")[-1]


def test_an_administrator_opens_them_to_others(render):
    opened = '[{"namespaceSelector":{"matchLabels":{"kubernetes.io/metadata.name":"ingress"}}}]'
    policies = _policies(render(*ON, "--set-json", f"networkPolicy.allowFrom={opened}"))
    assert len(policies["dreambooth-system", "dreambooth-mlflow"]["ingress"][0]["from"]) == 3
    assert len(policies["dreambooth-system", "dreambooth-gateway"]["ingress"][1]["from"]) == 2
