"""The gateway: what it is told, what it and the operator share, and what the operator is told of it."""

import base64
from typing import Any

import pytest
import yaml

from dreambooth_api import names
from tests.chart.variants import CHART, DEMO, VARIANTS

pytestmark = pytest.mark.cluster
GATEWAY, OPERATOR = "dreambooth-gateway", "dreambooth-operator"


def _one(manifests: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    (found,) = [m for m in manifests if (m["kind"], m["metadata"]["name"]) == (kind, name)]
    return found


def _pod(manifests: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return _one(manifests, "Deployment", name)["spec"]["template"]["spec"]


def _environment(manifests: list[dict[str, Any]]) -> dict[str, str]:
    return {e["name"]: e["value"] for e in _pod(manifests, OPERATOR)["containers"][0]["env"]}


def _token_of(pod: dict[str, Any], path: str) -> tuple[str, str]:
    """(Secret, key) that a pod finds as the file `path`."""
    (container,) = pod["containers"]
    (mount,) = [m for m in container["volumeMounts"] if path.startswith(m["mountPath"] + "/")]
    (volume,) = [v for v in pod["volumes"] if v["name"] == mount["name"]]
    (item,) = volume["secret"]["items"]
    assert path == f"{mount['mountPath']}/{item['path']}"
    return volume["secret"]["secretName"], item["key"]


def test_two_gateways_for_work_and_one_for_a_look(render):
    def replicas(*flags: str) -> int:
        return _one(render(*flags), "Deployment", GATEWAY)["spec"]["replicas"]

    assert (replicas(), replicas(*DEMO)) == (2, 1)


def test_operator_and_gateways_hold_the_same_token(render):
    manifests = render(*DEMO)
    (container,) = _pod(manifests, GATEWAY)["containers"]
    (path,) = [a.removeprefix("--token-file=") for a in container["args"] if a.startswith("--token-file=")]
    of_gateway = _token_of(_pod(manifests, GATEWAY), path)
    assert of_gateway == _token_of(_pod(manifests, OPERATOR), _environment(manifests)["DREAMBOOTH_GATEWAY_TOKEN_FILE"])
    secret = _one(manifests, "Secret", of_gateway[0])
    assert len(base64.b64decode(secret["data"][of_gateway[1]])) >= 32


def test_a_token_of_ones_own_is_used_and_none_is_made(render):
    manifests = render(*DEMO, "--set", "gateway.tokenSecret=ours")
    for name in (GATEWAY, OPERATOR):
        assert [v["secret"]["secretName"] for v in _pod(manifests, name)["volumes"] if "secret" in v] == ["ours"]
    assert GATEWAY not in [m["metadata"]["name"] for m in manifests if m["kind"] == "Secret"]


def test_a_gateway_asks_every_replica_of_the_operator_one_of_which_leads(render):
    manifests = render(*DEMO)
    (container,) = _pod(manifests, GATEWAY)["containers"]
    host = "dreambooth-operator-replicas.dreambooth-system.svc"
    assert f"--operator=http://{host}:{names.OPERATOR_ROUTES_PORT}" in container["args"]
    assert f"--port={names.GATEWAY_PORT}" in container["args"]
    replicas = _one(manifests, "Service", "dreambooth-operator-replicas")["spec"]
    assert replicas["clusterIP"] == "None"
    ports = {p["name"]: p["containerPort"] for p in _pod(manifests, OPERATOR)["containers"][0]["ports"]}
    assert ports["routes"] == names.OPERATOR_ROUTES_PORT


def test_what_is_added_to_its_command(render):
    (container,) = _pod(render(*DEMO, "--set", "gateway.args={--queue=9}"), GATEWAY)["containers"]
    assert container["command"][-1] == "dreambooth_server.gateway"
    assert container["args"][-1] == "--queue=9"


def test_the_operator_knows_where_clients_find_models(render):
    assert _environment(render())["DREAMBOOTH_GATEWAY_URL"] == "http://dreambooth-gateway.dreambooth-system.svc"
    given = _environment(render("--set", "gateway.url=https://draw.example.com/"))
    assert given["DREAMBOOTH_GATEWAY_URL"] == "https://draw.example.com"


def test_autoscalers_ask_for_requests_in_flight_where_the_cluster_can_say(render):
    assert _environment(render())["DREAMBOOTH_METRICS_API"] == "false"
    manifests = render("--set", "metricsApi.enabled=true")
    assert _environment(manifests)["DREAMBOOTH_METRICS_API"] == "true"
    rules = _one(manifests, "ConfigMap", "dreambooth-adapter-rules")["data"]["config.yaml"]
    assert yaml.safe_load(rules) == yaml.safe_load((CHART / "files/adapter-rules.yaml").read_text())


def test_without_a_gateway_there_is_no_trace_of_one(render):
    manifests = render(*VARIANTS["no gateway"])
    named = {m["metadata"]["name"] for m in manifests}
    assert not {GATEWAY, f"{GATEWAY}-replicas"} & named
    told = _environment(manifests)
    assert (told["DREAMBOOTH_GATEWAY_URL"], told["DREAMBOOTH_METRICS_API"]) == ("", "false")
    assert "DREAMBOOTH_GATEWAY_TOKEN_FILE" not in told


def test_its_account_has_no_rights(render):
    manifests = render(*VARIANTS["everything"])
    account = _one(manifests, "ServiceAccount", GATEWAY)
    assert account["automountServiceAccountToken"] is False
    bound = [s["name"] for m in manifests if m["kind"].endswith("Binding") for s in m["subjects"]]
    assert GATEWAY not in bound
    budget = _one(manifests, "PodDisruptionBudget", GATEWAY)["spec"]
    assert budget["maxUnavailable"] == 1


def test_prometheus_keeps_the_namespace_that_a_gateway_states(render):
    monitor = _one(render(*VARIANTS["monitoring"]), "ServiceMonitor", GATEWAY)["spec"]
    assert monitor["endpoints"] == [{"port": "metrics", "interval": "30s", "honorLabels": True}]


def test_its_metrics_are_on_a_port_that_the_clients_service_does_not_lead_to(render):
    manifests = render(*VARIANTS["monitoring"])
    (container,) = _pod(manifests, GATEWAY)["containers"]
    assert f"--metrics-port={names.GATEWAY_METRICS_PORT}" in container["args"]
    assert {"name": "metrics", "containerPort": names.GATEWAY_METRICS_PORT} in container["ports"]
    clients, replicas = (_one(manifests, "Service", name) for name in (GATEWAY, f"{GATEWAY}-replicas"))
    assert [port["targetPort"] for port in clients["spec"]["ports"]] == ["http"]
    assert [(p["name"], p["port"]) for p in replicas["spec"]["ports"]] == [("metrics", names.GATEWAY_METRICS_PORT)]
    wanted = _one(manifests, "ServiceMonitor", GATEWAY)["spec"]["selector"]["matchLabels"].items()
    services = [m["metadata"] for m in manifests if m["kind"] == "Service"]
    found = [service["name"] for service in services if wanted <= service["labels"].items()]
    assert found == [f"{GATEWAY}-replicas"]
