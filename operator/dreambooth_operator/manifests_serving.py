"""What the children of models and pools share: the server's container, autoscaler and disruption budget. Pure."""

from collections.abc import Callable
from typing import NamedTuple

from dreambooth_api import names
from dreambooth_api.serving import Scaling
from dreambooth_operator import manifests, pods
from dreambooth_operator.drift import stamped
from dreambooth_operator.settings import Settings
from dreambooth_operator.views import Body

GRACE_SECONDS = 60
# Endpoints and gateways learn of a pod's end later than the pod: without a pause its last requests would be refused.
PRE_STOP_SECONDS = 5
# Loading may mean downloading a base of gigabytes.
START_SECONDS = 1800
CPU_PERCENT = 70


class Owner(NamedTuple):
    """A kind of object that has servers."""

    kind: str
    # On its pods: the object's name.
    label: str
    # The same in gateways' series.
    series: str
    # What its children are called.
    child: Callable[[str], str]


MODEL = Owner(names.MODEL_KIND, names.LABEL_MODEL, "model", names.endpoint)
POOL = Owner(names.POOL_KIND, names.LABEL_POOL, "pool", names.pool)


def selector(owner: Owner, name: str, component: str = names.COMPONENT_SERVER) -> dict[str, str]:
    """Labels by which the pods of an object are found."""
    return {owner.label: name, names.LABEL_COMPONENT: component}


def child(owner: Owner, api_version: str, kind: str, body: Body) -> Body:
    """A manifest of an object's child without its content."""
    name = body["metadata"]["name"]
    own = manifests.labels(owner.label, name, names.COMPONENT_SERVER)
    return manifests.child(api_version, kind, owner.child(name), owner.kind, body, own)


def cache_claim(body: Body, serving: Scaling, settings: Settings) -> str | None:
    """The claim in which the replicas keep what they download; None: it ends with their pods."""
    made = body["metadata"]["namespace"] in settings.cached_namespaces
    return serving.cache_claim or (names.CACHE_CLAIM if made else None)


def volumes(cache: str | None) -> list[Body]:
    """What the container below mounts. `cache`: a claim."""
    return [pods.STORE_VOLUME, *([pods.cache_volume(cache)] if cache else [])]


def container(
    arguments: list[str], serving: Scaling, secret: str | None, cache: str | None, settings: Settings
) -> Body:
    """A server. `secret`: the one whose `token` opens its base; `cache`: the claim that keeps its downloads."""
    gpus = serving.gpus
    compiled = ["--compile"] if serving.compile else []
    lasting = [{"name": names.ENV_CACHE_DIR, "value": names.CACHE_DIR}] if cache else []
    return {
        "name": names.COMPONENT_SERVER,
        "image": settings.server_image,
        "imagePullPolicy": settings.pull_policy,
        "command": ["python", "-m", "dreambooth_server", *arguments, *compiled, "--port", str(names.SERVER_PORT)],
        "ports": [{"name": "http", "containerPort": names.SERVER_PORT, "protocol": "TCP"}],
        "env": [*pods.common_env(serving.template), *lasting, *pods.token_env(secret)],
        "resources": {"limits": {pods.GPU: gpus}} if gpus else {},
        "volumeMounts": [pods.STORE_MOUNT, *([pods.CACHE_MOUNT] if cache else [])],
        "startupProbe": _probe("/healthz", period=2, timeout=5, failures=START_SECONDS // 2),
        # Often: whoever woke a sleeping model waits for it.
        "readinessProbe": _probe("/readyz", period=1, timeout=5, failures=3),
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


def deployment_spec(selector: dict[str, str], template: Body) -> Body:
    """A Deployment's spec.

    `replicas` is left out on purpose: the autoscaler's. A Deployment begins with 1, and the autoscaler lifts it to its
    minimum even without metrics; if an apply named the field, every later one would fight the autoscaler.
    """
    return {
        "selector": {"matchLabels": selector},
        "revisionHistoryLimit": 3,
        "progressDeadlineSeconds": START_SECONDS,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
        "template": template,
    }


def scalers(owner: Owner, body: Body, serving: Scaling, settings: Settings) -> list[Body]:
    """What looks after the number of replicas: the autoscaler, and, where there can be a second one, the budget."""
    found = [_autoscaler(owner, body, serving, settings)]
    return [*found, _budget(owner, body)] if serving.max_replicas > 1 else found


def _autoscaler(owner: Owner, body: Body, serving: Scaling, settings: Settings) -> Body:
    """By what gateways have in flight, or, without a metrics API, by CPU use. It cannot go below 1: what has no
    replicas it leaves alone."""
    name = body["metadata"]["name"]
    return stamped({
        **child(owner, "autoscaling/v2", "HorizontalPodAutoscaler", body),
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": owner.child(name)},
            "minReplicas": max(1, serving.min_replicas),
            "maxReplicas": serving.max_replicas,
            "metrics": [_in_flight(serving, owner.series, name) if settings.metrics_api else _cpu()],
        },
    })  # fmt: skip


def _cpu() -> Body:
    utilisation = {"type": "Utilization", "averageUtilization": CPU_PERCENT}
    return {"type": "Resource", "resource": {"name": "cpu", "target": utilisation}}


def _in_flight(serving: Scaling, label: str, name: str) -> Body:
    metric = {"name": names.METRIC_IN_FLIGHT, "selector": {"matchLabels": {label: name}}}
    target = {"type": "AverageValue", "averageValue": str(serving.target_in_flight)}
    return {"type": "External", "external": {"metric": metric, "target": target}}


def _budget(owner: Owner, body: Body) -> Body:
    """One disruption at a time; of what is not ready, any: it would keep a node from being drained for nothing."""
    return stamped({
        **child(owner, "policy/v1", "PodDisruptionBudget", body),
        "spec": {
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": selector(owner, body["metadata"]["name"])},
        },
    })  # fmt: skip
