"""The status of a model in each of its situations. Pure."""

from dreambooth_api import names
from dreambooth_api.model import Artifact, PersonalizedModelStatus, Revision
from dreambooth_api.reasons import ConditionType, ModelPhase, Reason
from dreambooth_operator import causes, manifests_model
from dreambooth_operator.status import with_condition
from dreambooth_operator.views import Body, ModelView, Problem

REVISIONS = 5


def held(view: ModelView, old: PersonalizedModelStatus, problem: Problem) -> PersonalizedModelStatus:
    """No roll-out is possible; what an earlier one left serves on."""
    serves = _available(view) > 0
    new = _base(view, old).model_copy(update={"phase": ModelPhase.DEGRADED if serves else ModelPhase.PENDING})
    new = with_condition(new, view, ConditionType.PROGRESSING, False, problem.reason, problem.message)
    reason = Reason.AVAILABLE if serves else problem.reason
    message = "an earlier artifact is served" if serves else problem.message
    return with_condition(new, view, ConditionType.READY, serves, reason, message)


def serving(view: ModelView, old: PersonalizedModelStatus, artifact: Artifact) -> PersonalizedModelStatus:
    """Being rolled out, or rolled out."""
    done, available = rolled_out(view, artifact), _available(view) > 0
    problem = _trouble(view, artifact)
    new = _base(view, old).model_copy(
        update={
            "phase": _phase(done, available, problem),
            "url": manifests_model.url(view.name, view.namespace),
            "selector": ",".join(f"{key}={value}" for key, value in manifests_model.selector(view.name).items()),
            "revisions": _revisions(view, old, artifact, available),
        }
    )
    if done:
        reason, message = problem or Problem(Reason.AVAILABLE, "rolled out")
        new = with_condition(new, view, ConditionType.PROGRESSING, False, reason, message)
        return with_condition(new, view, ConditionType.READY, True, Reason.AVAILABLE, f"serves {artifact.digest}")
    reason, message = problem or Problem(Reason.ROLLING_OUT, "pods are starting")
    new = with_condition(new, view, ConditionType.PROGRESSING, problem is None, reason, message)
    if available:
        return with_condition(new, view, ConditionType.READY, True, Reason.ROLLING_OUT, "earlier pods serve meanwhile")
    return with_condition(new, view, ConditionType.READY, False, reason, message)


def rolled_out(view: ModelView, artifact: Artifact) -> bool:
    """Whether every replica is of the wanted artifact, and one at least is available. How many there should be is the
    autoscaler's business: a model that is scaled up has been rolled out all the same."""
    deployment = _deployment(view)
    if deployment is None or _artifact_of(deployment["spec"]["template"]) != artifact.digest:
        return False
    status = deployment.get("status", {})
    return (
        status.get("observedGeneration", 0) >= deployment["metadata"].get("generation", 1)
        and status.get("availableReplicas", 0) >= 1
        and status.get("replicas", 0) == status.get("updatedReplicas", 0)
    )


def _base(view: ModelView, old: PersonalizedModelStatus) -> PersonalizedModelStatus:
    status = (_deployment(view) or {}).get("status", {})
    return old.model_copy(
        update={
            "observed_generation": view.generation,
            "replicas": status.get("replicas", 0),
            "ready_replicas": status.get("readyReplicas", 0),
        }
    )


def _phase(done: bool, available: bool, problem: Problem | None) -> ModelPhase:
    if done:
        return ModelPhase.READY
    return ModelPhase.DEGRADED if available and problem else ModelPhase.PROGRESSING


def _trouble(view: ModelView, artifact: Artifact) -> Problem | None:
    """What keeps the pods of the wanted artifact from being ready."""
    pods = [pod for pod in view.pods if _artifact_of(pod) == artifact.digest and not causes.leaving(pod)]
    for pod in pods:
        if problem := causes.waiting_problem(pod):
            return problem
    # A container that runs again may be about to succeed; what it died of is told until it is ready.
    ended = [pod for pod in pods if causes.condition(pod, "Ready").get("status") != "True"]
    problem = causes.failure(ended)
    if problem and problem.reason == Reason.POD_FAILED:
        return Problem(Reason.UNAVAILABLE, problem.message)
    if problem:
        return problem
    failed = causes.condition(_deployment(view) or {}, "ReplicaFailure")
    if failed.get("status") == "True":
        return Problem(Reason.UNSCHEDULABLE, failed.get("message", "no pods can be made"))
    return None


def _revisions(view: ModelView, old: PersonalizedModelStatus, artifact: Artifact, available: bool) -> list[Revision]:
    ready = any(
        _artifact_of(pod) == artifact.digest and causes.condition(pod, "Ready").get("status") == "True"
        for pod in view.pods
    )
    earlier = [revision for revision in old.revisions if revision.digest != artifact.digest]
    serving = not ready and available
    rest = [
        Revision(digest=r.digest, weight=100 if serving and i == 0 else 0, ready=serving and i == 0)
        for i, r in enumerate(earlier)
    ]
    return [Revision(digest=artifact.digest, weight=100 if ready else 0, ready=ready), *rest][:REVISIONS]


def _available(view: ModelView) -> int:
    return (_deployment(view) or {}).get("status", {}).get("availableReplicas", 0)


def _deployment(view: ModelView) -> Body | None:
    return view.child("Deployment", names.endpoint(view.name))


def _artifact_of(templated: Body) -> str | None:
    return templated["metadata"].get("annotations", {}).get(names.ANNOTATION_ARTIFACT)
