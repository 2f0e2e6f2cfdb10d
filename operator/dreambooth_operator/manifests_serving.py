"""What the children of models and pools share: the server's container, autoscaler and disruption budget. Pure."""

from dreambooth_api import names
from dreambooth_api.serving import Scaling
from dreambooth_operator import pods
from dreambooth_operator.settings import Settings
from dreambooth_operator.views import Body

GRACE_SECONDS = 60
# Endpoints and gateways learn of a pod's end later than the pod: without a pause its last requests would be refused.
PRE_STOP_SECONDS = 5
# Loading may mean downloading a base of gigabytes.
START_SECONDS = 1800
CPU_PERCENT = 70


def container(arguments: list[str], serving: Scaling, secret: str | None, settings: Settings) -> Body:
    """A server. `secret`: the one whose `token` opens its base."""
    gpus = serving.gpus
    return {
        "name": names.COMPONENT_SERVER,
        "image": settings.server_image,
        "imagePullPolicy": settings.pull_policy,
        "command": ["python", "-m", "dreambooth_server", *arguments, "--port", str(names.SERVER_PORT)],
        "ports": [{"name": "http", "containerPort": names.SERVER_PORT, "protocol": "TCP"}],
        "env": [*pods.common_env(serving.template), *pods.token_env(secret)],
        "resources": {"limits": {pods.GPU: gpus}} if gpus else {},
        "volumeMounts": [pods.STORE_MOUNT],
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


def autoscaler_spec(deployment: str, serving: Scaling, label: str, name: str, settings: Settings) -> Body:
    """Scales a Deployment by what gateways have in flight of it (`label` is `model` or `pool`), or, without a metrics
    API, by its CPU use. It cannot go below 1: what has no replicas it leaves alone."""
    return {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": deployment},
        "minReplicas": max(1, serving.min_replicas),
        "maxReplicas": serving.max_replicas,
        "metrics": [_in_flight(serving, label, name) if settings.metrics_api else _cpu()],
    }


def _cpu() -> Body:
    utilisation = {"type": "Utilization", "averageUtilization": CPU_PERCENT}
    return {"type": "Resource", "resource": {"name": "cpu", "target": utilisation}}


def _in_flight(serving: Scaling, label: str, name: str) -> Body:
    metric = {"name": names.METRIC_IN_FLIGHT, "selector": {"matchLabels": {label: name}}}
    target = {"type": "AverageValue", "averageValue": str(serving.target_in_flight)}
    return {"type": "External", "external": {"metric": metric, "target": target}}


def budget_spec(selector: dict[str, str]) -> Body:
    """One disruption at a time; of what is not ready, any: it would keep a node from being drained for nothing."""
    return {
        "maxUnavailable": 1,
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
        "selector": {"matchLabels": selector},
    }
