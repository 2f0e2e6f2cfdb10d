"""Values: typos and wrong types are refused by name, everything is documented, names are what others rely on."""

import json
import re

import pytest
import yaml

from tests.chart.variants import CHART, DEMO, VARIANTS

pytestmark = pytest.mark.cluster


def test_helm_lint_is_content(helm):
    for flags in ((), DEMO):
        done = helm("lint", "--strict", *flags, str(CHART))
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("operater.namespaces={a}", "operater"),
        ("operator.namespace=a", "namespace"),
        ("operator.namespaces=a", "/operator/namespaces"),
        ("operator.namespaces={Team_A}", "/operator/namespaces/0"),
        ("operator.namespaces={a,a}", "/operator/namespaces"),
        ("operator.mlflowUrl=mlflow:5000", "/operator/mlflowUrl"),
        ("operator.env.A=1", "/operator/env/A"),
        ("operator.resources.limit.memory=1Gi", "limit"),
        ("operator.resources.limits.memory=1GB", "/operator/resources/limits/memory"),
        ("operator.replicas=0", "/operator/replicas"),
        ("images.pullPolicy=Sometimes", "/images/pullPolicy"),
        ("images.operator=dreambooth/operator:1", "/images/operator"),
        ("images.operator.digest=0123", "/images/operator/digest"),
        ("images.pullSecrets=registry", "/images/pullSecrets"),
        ("podSecurity.runAsUser=0", "/podSecurity/runAsUser"),
        ("store.endpoint=minio:9000", "/store/endpoint"),
        ("store.bucket=My_Bucket", "/store/bucket"),
        ("store.prefix=/teams", "/store/prefix"),
        ("store.secretkey=x", "secretkey"),
        ("store.perNamespace.a.key=x", "key"),
        ("minio.enabled=yes", "/minio/enabled"),
        ("minio.rootPassword=short", "/minio/rootPassword"),
        ("minio.persistence.size=ten", "/minio/persistence/size"),
        ("mlflow.allowedHosts=mlflow.example.com", "/mlflow/allowedHosts"),
        ("prometheus.scrapeInterval=5", "/prometheus/scrapeInterval"),
        ("monitoring.serviceMonitors.enabled=true", "serviceMonitors"),
        ("gateway.replicas=0", "/gateway/replicas"),
        ("gateway.url=gateway:80", "/gateway/url"),
        ("gateway.args=--port=1", "/gateway/args"),
        ("gateway.tokenSecret=My_Secret", "/gateway/tokenSecret"),
        ("metricsApi.enabled=yes", "/metricsApi/enabled"),
        ("cache.nodePath=../var", "/cache/nodePath"),
        ("cache.size=much", "/cache/size"),
        ("networkPolicy.gatewayTo=all", "/networkPolicy/gatewayTo"),
        ("crds.install=1", "/crds/install"),
        ("fullnameOverride=Dream", "/fullnameOverride"),
    ],
)
def test_bad_values_are_refused_by_name(refusal, value, told):
    assert told in refusal("--set", value)


def test_the_schema_forbids_unknown_keys_everywhere():
    def loose(schema, path):
        if (
            schema.get("type") == "object"
            and "properties" in schema
            and schema.get("additionalProperties") is not False
        ):
            yield path
        for name, inner in {**schema.get("properties", {}), **schema.get("definitions", {})}.items():
            yield from loose(inner, f"{path}/{name}")

    schema = json.loads((CHART / "values.schema.json").read_text())
    assert list(loose(schema, "")) == []
    assert set(schema["properties"]) - {"global"} == set(yaml.safe_load((CHART / "values.yaml").read_text()))


def test_a_store_that_is_not_stated_is_asked_for(refusal):
    text = refusal("--set", "store.secret.create=true,store.namespaces={demo}")
    assert "store.accessKey is empty for namespace demo" in text
    assert "minio.enabled" in text


def test_the_release_dreambooth_has_the_names_that_others_rely_on(render):
    services = {m["metadata"]["name"]: m for m in render(*DEMO) if m["kind"] == "Service"}
    ports = {name: {p["port"] for p in service["spec"]["ports"]} for name, service in services.items()}
    assert ports == {
        "dreambooth-operator": {9401, 8080},
        "dreambooth-operator-replicas": {9401, 9402},
        "dreambooth-gateway": {80},
        "dreambooth-gateway-replicas": {9403},
        "dreambooth-minio": {9000, 9001},
        "dreambooth-mlflow": {5000},
        "dreambooth-prometheus": {9090},
    }


@pytest.mark.parametrize("release", ["dreambooth", "a", "x" * 53])
def test_names_fit_and_selectors_find_their_pods(render, release):
    manifests = render(*VARIANTS["everything"], release=release)
    for manifest in manifests:
        assert len(manifest["metadata"]["name"]) <= 63
    templates = [m["spec"]["template"] for m in manifests if m["kind"] == "Deployment"]
    for service in (m for m in manifests if m["kind"] == "Service"):
        selector = service["spec"]["selector"].items()
        (template,) = [t for t in templates if selector <= t["metadata"]["labels"].items()]
        named = {p["name"] for c in template["spec"]["containers"] for p in c["ports"]}
        assert {p["targetPort"] for p in service["spec"]["ports"]} <= named


def test_images_are_short_public_names_and_a_mirror_prefixes_them(render):
    def images(*flags):
        text = json.dumps(render(*flags))
        return set(re.findall(r'"image": "([^"]+)"', text))

    public = images(*DEMO)
    assert public == {
        "dreambooth/operator:0.1.0", "dreambooth/trainer:0.1.0", "dreambooth/server:0.1.0",
        "minio/minio:RELEASE.2025-09-07T16-13-09Z", "prom/prometheus:v2.42.0",
    }  # fmt: skip
    assert images(*DEMO, "--set", "images.registry=mirror.example.com") == {f"mirror.example.com/{i}" for i in public}
    digest = "sha256:" + "0" * 64
    assert f"dreambooth/operator@{digest}" in images("--set", f"images.operator.digest={digest}")


def test_the_operator_is_told_which_images_and_mlflow_to_use(render):
    def environment(*flags):
        (operator,) = [
            m
            for m in render(*flags)
            if m["metadata"]["name"] == "dreambooth-operator" and "template" in m.get("spec", {})
        ]
        return {e["name"]: e.get("value") for e in operator["spec"]["template"]["spec"]["containers"][0]["env"]}

    demo = environment(*DEMO)
    assert demo["DREAMBOOTH_TRAINER_IMAGE"] == "dreambooth/trainer:0.1.0"
    assert demo["DREAMBOOTH_SERVER_IMAGE"] == "dreambooth/server:0.1.0"
    assert demo["DREAMBOOTH_IMAGE_PULL_POLICY"] == "IfNotPresent"
    assert demo["DREAMBOOTH_NAMESPACES"] == ""
    assert demo["DREAMBOOTH_MLFLOW_URL"] == "http://dreambooth-mlflow.dreambooth-system.svc:5000"
    assert environment()["DREAMBOOTH_MLFLOW_URL"] == ""
    assert environment("--set", "operator.mlflowUrl=https://m.example.com")["DREAMBOOTH_MLFLOW_URL"].endswith(
        "m.example.com"
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_manifest_says_where_it_belongs(render, variant):
    seen = set()
    for manifest in render(*VARIANTS[variant]):
        where = (manifest["kind"], manifest["metadata"].get("namespace"), manifest["metadata"]["name"])
        assert where not in seen
        seen.add(where)
        assert manifest["metadata"]["labels"]["app.kubernetes.io/name"] == "dreambooth"


def test_custom_resource_definitions_can_be_left_out_and_are_kept(render):
    crds = [m for m in render() if m["kind"] == "CustomResourceDefinition"]
    assert len(crds) == 3
    assert all(m["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep" for m in crds)
    assert not [m for m in render("--set", "crds.install=false") if m["kind"] == "CustomResourceDefinition"]


def test_monitors_are_left_out_where_the_cluster_has_no_such_api(render):
    kinds = {"ServiceMonitor", "PodMonitor", "PrometheusRule"}
    with_api = VARIANTS["monitoring"]
    assert kinds <= {m["kind"] for m in render(*with_api)}
    assert not kinds & {m["kind"] for m in render(*DEMO, *with_api[-2:])}
