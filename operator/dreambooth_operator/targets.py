"""Prometheus' HTTP service discovery: the pods that can be scraped. Pure."""

from collections.abc import Iterable

from dreambooth_api import names
from dreambooth_operator import causes, job_results
from dreambooth_operator.views import Body


def targets(pods: Iterable[Body]) -> list[dict]:
    """Running trainers (rank 0 of each job: the others serve nothing) and servers, as `http_sd_configs` reads them."""
    return [entry for pod in pods if (entry := _target(pod))]


def _target(pod: Body) -> dict | None:
    labels = pod["metadata"].get("labels", {})
    component, address = labels.get(names.LABEL_COMPONENT), pod.get("status", {}).get("podIP")
    if not address or not causes.running(pod):
        return None
    if component == names.COMPONENT_TRAIN and job_results.rank(pod) == 0:
        port = names.TRAINER_PORT
    elif component in (names.COMPONENT_SERVER, names.COMPONENT_CANARY):
        port = names.SERVER_PORT
    else:
        return None
    # `dreambooth_job`: the label `job` is Prometheus' own.
    found = {
        "namespace": pod["metadata"]["namespace"],
        "pod": pod["metadata"]["name"],
        "component": component,
        "dreambooth_job": labels.get(names.LABEL_JOB, ""),
        "model": labels.get(names.LABEL_MODEL, ""),
        "pool": labels.get(names.LABEL_POOL, ""),
    }
    host = f"[{address}]" if ":" in address else address
    return {"targets": [f"{host}:{port}"], "labels": {key: value for key, value in found.items() if value}}
