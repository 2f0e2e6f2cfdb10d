"""A model's children: Deployment, Service and HorizontalPodAutoscaler. Pure."""

from dreambooth_api import names
from dreambooth_api.model import Artifact, PersonalizedModelSpec
from dreambooth_operator import manifests, pods
from dreambooth_operator.drift import stamped
from dreambooth_operator.settings import Settings
from dreambooth_operator.views import Body

GRACE_SECONDS = 60
# Endpoints learn of a pod's end later than the pod: without a pause its last requests would be refused.
PRE_STOP_SECONDS = 5
# Loading may mean downloading a base of gigabytes.
START_SECONDS = 1800
CPU_PERCENT = 70


def selector(name: str) -> dict[str, str]:
    """Labels by which the endpoint's pods are found."""
    return {names.LABEL_MODEL: name, names.LABEL_COMPONENT: names.COMPONENT_SERVER}


def url(name: str, namespace: str) -> str:
    """Where OpenAI's clients find the model inside the cluster."""
    return f"http://{names.endpoint(name)}.{namespace}.svc/v1"


def deployment(body: Body, spec: PersonalizedModelSpec, artifact: Artifact, settings: Settings) -> Body:
    """The server's pods.

    `replicas` is left out on purpose: the autoscaler's. A Deployment begins with 1, and the autoscaler lifts it to its
    minimum even without metrics; if an apply named the field, every later one would fight the autoscaler.
    """
    name = body["metadata"]["name"]
    template = pods.pod_template(
        _container(body, spec, artifact, settings),
        spec.serving.template,
        labels=manifests.labels(names.LABEL_MODEL, name, names.COMPONENT_SERVER),
        annotations={**pods.scrape_annotations(names.SERVER_PORT), names.ANNOTATION_ARTIFACT: artifact.digest},
        volumes=[pods.STORE_VOLUME],
        grace_seconds=GRACE_SECONDS,
    )
    return stamped({
        **_child("apps/v1", "Deployment", body),
        "spec": {
            "selector": {"matchLabels": selector(name)},
            "revisionHistoryLimit": 3,
            "progressDeadlineSeconds": START_SECONDS,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": template,
        },
    })  # fmt: skip


def _container(body: Body, spec: PersonalizedModelSpec, artifact: Artifact, settings: Settings) -> Body:
    gpus = spec.serving.gpus
    secret = body["metadata"].get("annotations", {}).get(names.ANNOTATION_BASE_SECRET)
    command = ["python", "-m", "dreambooth_server"]
    arguments = ["--artifact", artifact.uri, "--digest", artifact.digest, "--name", body["metadata"]["name"]]
    return {
        "name": names.COMPONENT_SERVER,
        "image": settings.server_image,
        "imagePullPolicy": settings.pull_policy,
        "command": [*command, *arguments, "--port", str(names.SERVER_PORT)],
        "ports": [{"name": "http", "containerPort": names.SERVER_PORT, "protocol": "TCP"}],
        "env": [*pods.common_env(spec.serving.template), *pods.token_env(secret)],
        "resources": {"limits": {pods.GPU: gpus}} if gpus else {},
        "volumeMounts": [pods.STORE_MOUNT],
        "startupProbe": _probe("/healthz", period=2, timeout=5, failures=START_SECONDS // 2),
        "readinessProbe": _probe("/readyz", period=2, timeout=5, failures=3),
        "livenessProbe": _probe("/healthz", period=10, timeout=10, failures=6),
        "lifecycle": {"preStop": {"sleep": {"seconds": PRE_STOP_SECONDS}}},
    }


def _probe(path: str, period: int, timeout: int, failures: int) -> Body:
    return {
        "httpGet": {"path": path, "port": "http"},
        "periodSeconds": period,
        "timeoutSeconds": timeout,
        "failureThreshold": failures,
    }


def service(body: Body) -> Body:
    """The endpoint's stable address."""
    ports = [{"name": "http", "port": names.SERVICE_PORT, "targetPort": "http", "protocol": "TCP"}]
    return stamped({
        **_child("v1", "Service", body),
        "spec": {"selector": selector(body["metadata"]["name"]), "ports": ports},
    })  # fmt: skip


def autoscaler(body: Body, spec: PersonalizedModelSpec) -> Body:
    """Scales the Deployment by its CPU use. It cannot go below 1: nothing would hold the requests meanwhile."""
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": names.endpoint(body["metadata"]["name"])}
    utilisation = {"type": "Utilization", "averageUtilization": CPU_PERCENT}
    return stamped({
        **_child("autoscaling/v2", "HorizontalPodAutoscaler", body),
        "spec": {
            "scaleTargetRef": target,
            "minReplicas": max(1, spec.serving.min_replicas),
            "maxReplicas": spec.serving.max_replicas,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": utilisation}}],
        },
    })  # fmt: skip


def _child(api_version: str, kind: str, body: Body) -> Body:
    name = body["metadata"]["name"]
    own = manifests.labels(names.LABEL_MODEL, name, names.COMPONENT_SERVER)
    return manifests.child(api_version, kind, names.endpoint(name), names.MODEL_KIND, body, own)
