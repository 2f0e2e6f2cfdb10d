"""What a Deployment of servers and its pods say. Pure."""

from collections.abc import Iterable

from dreambooth_api import names
from dreambooth_api.reasons import Reason
from dreambooth_operator import causes
from dreambooth_operator.views import Body, Problem


def available(deployment: Body | None) -> int:
    """Replicas that serve."""
    return (deployment or {}).get("status", {}).get("availableReplicas", 0)


def rolled_out(deployment: Body | None) -> bool:
    """Whether every replica is of the Deployment's present template, and one at least is available. How many there
    should be is the autoscaler's business: what is scaled up has been rolled out all the same."""
    if deployment is None:
        return False
    status = deployment.get("status", {})
    return (
        status.get("observedGeneration", 0) >= deployment["metadata"].get("generation", 1)
        and status.get("availableReplicas", 0) >= 1
        and status.get("replicas", 0) == status.get("updatedReplicas", 0)
    )


def artifact_of(templated: Body) -> str | None:
    """The digest of the artifact that a pod, or a pod's template, serves."""
    return templated["metadata"].get("annotations", {}).get(names.ANNOTATION_ARTIFACT)


def ready(pod: Body) -> bool:
    """Whether a pod answers requests and will go on doing so."""
    return causes.condition(pod, "Ready").get("status") == "True" and not causes.leaving(pod)


def trouble(pods: Iterable[Body], deployment: Body | None) -> Problem | None:
    """What keeps pods of a Deployment from being ready."""
    here = [pod for pod in pods if not causes.leaving(pod)]
    for pod in here:
        if problem := causes.waiting_problem(pod):
            return problem
    # A container that runs again may be about to succeed; what it died of is told until it is ready.
    problem = causes.failure([pod for pod in here if causes.condition(pod, "Ready").get("status") != "True"])
    if problem and problem.reason == Reason.POD_FAILED:
        return Problem(Reason.UNAVAILABLE, problem.message)
    if problem:
        return problem
    failed = causes.condition(deployment or {}, "ReplicaFailure")
    if failed.get("status") == "True":
        return Problem(Reason.UNSCHEDULABLE, failed.get("message", "no pods can be made"))
    return None
