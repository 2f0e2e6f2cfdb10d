"""A model's children."""

from dataclasses import replace

import pytest

from dreambooth_api import names
from dreambooth_api.parse import InvalidResource, parse_model
from dreambooth_operator import manifests_model, manifests_serving


def built(make, settings, serving=None, **metadata):
    body = make.model(**metadata)
    body["spec"]["serving"] = serving or {}
    spec = parse_model(body).spec
    deployment = manifests_model.deployment(body, spec, spec.artifact, settings)
    autoscaler, *_ = manifests_serving.scalers(manifests_serving.MODEL, body, spec.serving, settings)
    return deployment, manifests_model.service(body), autoscaler


def test_the_deployment_is_as_committed(make, settings, check_golden):
    check_golden("deployment", built(make, settings)[0])


@pytest.mark.parametrize("serving", [{}, {"gpus": 1}, {"template": {"volumeClaims": {"/mnt/pvc/models": "models"}}}])
def test_the_servers_pods_are_admitted_under_restricted(make, settings, admitted, serving):
    assert admitted(built(make, settings, serving)[0]["spec"]["template"]) == []


def test_replicas_are_the_autoscalers(make, settings):
    deployment, _, autoscaler = built(make, settings, {"minReplicas": 2, "maxReplicas": 3})
    assert "replicas" not in deployment["spec"]
    assert (autoscaler["spec"]["minReplicas"], autoscaler["spec"]["maxReplicas"]) == (2, 3)
    assert autoscaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]


def test_it_never_goes_below_one(make, settings):
    assert built(make, settings, {"minReplicas": 0})[2]["spec"]["minReplicas"] == 1


def test_the_service_finds_the_pods(make, settings):
    deployment, service, _ = built(make, settings)
    template = deployment["spec"]["template"]
    assert service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
    assert service["spec"]["ports"][0]["port"] == 80
    assert template["spec"]["containers"][0]["ports"][0] == {"name": "http", "containerPort": 8080, "protocol": "TCP"}
    assert manifests_model.url("robot", "team", settings) == "http://robot-endpoint.team.svc/v1"


def test_with_a_gateway_the_address_is_its(settings):
    settings = replace(settings, gateway_url="http://gateway")
    assert manifests_model.url("robot", "team", settings) == "http://gateway/team/robot/v1"


def test_with_a_metrics_api_the_autoscaler_goes_by_what_is_in_flight(make, settings):
    (cpu,) = built(make, settings)[2]["spec"]["metrics"]
    assert cpu["resource"]["name"] == "cpu"
    settings = replace(settings, metrics_api=True)
    (metric,) = built(make, settings, {"targetInFlight": 3})[2]["spec"]["metrics"]
    assert metric == {"type": "External", "external": {
        "metric": {"name": "dreambooth_in_flight_requests", "selector": {"matchLabels": {"model": "robot"}}},
        "target": {"type": "AverageValue", "averageValue": "3"},
    }}  # fmt: skip


def test_a_canary_is_found_by_no_service_and_scaled_by_no_autoscaler(make, settings, admitted):
    body = make.model()
    spec = parse_model(body).spec
    canary = manifests_model.canary(body, spec, spec.artifact, 2, settings)
    endpoint, service, _ = built(make, settings)
    labels = canary["spec"]["template"]["metadata"]["labels"]
    assert not service["spec"]["selector"].items() <= labels.items()
    assert canary["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert canary["spec"]["selector"] != endpoint["spec"]["selector"]
    assert (canary["metadata"]["name"], canary["spec"]["replicas"]) == ("robot-canary", 2)
    assert admitted(canary["spec"]["template"]) == []


def test_a_drain_takes_one_pod_at_a_time(make, settings):
    body = make.model()
    _, budget = manifests_serving.scalers(manifests_serving.MODEL, body, parse_model(body).spec.serving, settings)
    labels = built(make, settings)[0]["spec"]["template"]["metadata"]["labels"]
    assert budget["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert budget["spec"]["maxUnavailable"] == 1


def test_a_roll_out_takes_no_replica_away(make, settings):
    strategy = built(make, settings)[0]["spec"]["strategy"]
    assert strategy["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}


def test_the_server_is_told_what_to_serve(make, settings):
    container = built(make, settings)[0]["spec"]["template"]["spec"]["containers"][0]
    command = container["command"]
    assert command[:3] == ["python", "-m", "dreambooth_server"]
    assert command[command.index("--digest") + 1] == make.digest
    assert command[command.index("--name") + 1] == "robot"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"


def test_the_server_compiles_where_it_is_told_to(make, settings):
    def command(serving):
        return built(make, settings, serving)[0]["spec"]["template"]["spec"]["containers"][0]["command"]

    assert set(command({"compile": True})) - set(command({})) == {"--compile"}


def cache_of(deployment):
    """The claim in which a Deployment's pods keep what they download, as volume, mount and environment agree on it."""
    spec = deployment["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    claims = {v["name"]: v["persistentVolumeClaim"] for v in spec["volumes"] if "persistentVolumeClaim" in v}
    mounts = {m["mountPath"]: m for m in container["volumeMounts"]}
    env = {entry["name"]: entry.get("value") for entry in container["env"]}
    if names.ENV_CACHE_DIR not in env:
        assert not claims
        return None
    mount = mounts[env[names.ENV_CACHE_DIR]]
    assert "readOnly" not in mount
    (name, claim), = claims.items()  # fmt: skip
    assert mount["name"] == name
    return claim["claimName"]


def test_downloads_outlive_the_pods_where_a_claim_is_named_or_the_chart_made_one(make, settings, admitted):
    cached = replace(settings, cached_namespaces=frozenset({"team"}))
    for serving, told, claim in (
        ({}, settings, None),
        ({}, replace(settings, cached_namespaces=frozenset({"others"})), None),
        ({}, cached, "dreambooth-cache"),
        ({"cacheClaim": "own"}, settings, "own"),
        ({"cacheClaim": "own"}, cached, "own"),
    ):
        deployment, *_ = built(make, told, serving)
        assert cache_of(deployment) == claim
        assert admitted(deployment["spec"]["template"]) == []
    body = make.model()
    spec = parse_model(body).spec
    assert cache_of(manifests_model.canary(body, spec, spec.artifact, 1, cached)) == "dreambooth-cache"


def test_nobody_says_in_the_pods_environment_where_downloads_are_kept(make, settings):
    env = [{"name": names.ENV_CACHE_DIR, "value": "/proc/self/root"}]
    deployment, *_ = built(make, settings, {"cacheClaim": "own", "template": {"env": env}})
    assert cache_of(deployment) == "own"


@pytest.mark.parametrize("cache", [{"hostPath": {"path": "/"}}, "../theirs/claim", "theirs/claim", ""])
def test_a_cache_is_a_claim_of_the_namespace_and_nothing_else(make, cache):
    """What a claim is bound to, an administrator's PersistentVolume says: no folder of a node is had by naming it."""
    body = make.model()
    body["spec"]["serving"] = {"cacheClaim": cache}
    with pytest.raises(InvalidResource, match="cacheClaim"):
        parse_model(body)


def test_a_gated_base_opens_for_the_server_too(make, settings):
    deployment, *_ = built(make, settings, annotations={names.ANNOTATION_BASE_SECRET: "hf"})
    env = deployment["spec"]["template"]["spec"]["containers"][0]["env"]
    assert any(entry["name"] == "HF_TOKEN" for entry in env)
