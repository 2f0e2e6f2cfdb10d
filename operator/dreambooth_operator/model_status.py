"""The status of a model in each of its situations. Pure."""

from dreambooth_api import names
from dreambooth_api.model import Artifact, PersonalizedModelStatus, Revision
from dreambooth_api.reasons import ConditionType, ModelPhase, Reason
from dreambooth_operator import deployments, manifests_model, revisions, rollout, scaling
from dreambooth_operator.rollout import Plan
from dreambooth_operator.settings import Settings
from dreambooth_operator.status import condition_of, with_condition
from dreambooth_operator.views import Body, ModelView, Problem

AVAILABLE = Problem(Reason.AVAILABLE, "rolled out")
ASLEEP = "nobody asks, and no replica runs; the next request wakes one"
WAKING = "somebody asks: a replica is starting"


def held(view: ModelView, problem: Problem) -> PersonalizedModelStatus:
    """No roll-out is possible; what an earlier one left serves on."""
    word = _earlier(view)
    new = base(view).model_copy(update={"phase": ModelPhase.DEGRADED if word else ModelPhase.PENDING})
    new = with_condition(new, view, ConditionType.PROGRESSING, False, problem.reason, problem.message)
    return with_condition(new, view, ConditionType.READY, word is not None, *(word or problem))


def _earlier(view: ModelView) -> Problem | None:
    """How an earlier artifact is served, by a pool, or by replicas of its own, which may sleep; None when it is not."""
    now, live = rollout.current(view.status), endpoint(view)
    pooled = now is not None and names.is_pool_backend(now.backend) and view.pool is not None
    if pooled or deployments.available(live):
        return Problem(Reason.AVAILABLE, "an earlier artifact is served")
    if now is None or live is None:
        return None
    if scaling.replicas(live) == 0:
        return Problem(Reason.SCALED_TO_ZERO, ASLEEP)
    if _slept(view) and deployments.trouble(view.pods, live) is None:
        return Problem(Reason.SCALED_TO_ZERO, WAKING)
    return None


def _slept(view: ModelView) -> bool:
    """Whether it had no replicas when it was looked at last, or none that was ready yet."""
    ready = condition_of(view.status, ConditionType.READY)
    return ready is not None and ready.reason == Reason.SCALED_TO_ZERO


def serving(
    view: ModelView,
    artifact: Artifact,
    plan: Plan | None,
    asleep: bool,
    settings: Settings,
) -> PersonalizedModelStatus:
    """Being rolled out, or rolled out. `asleep`: it is to have no replicas."""
    selector, own = manifests_model.selector(view.name), names.model_backend(view.namespace, view.name)
    new = base(view).model_copy(
        update={
            "url": manifests_model.url(view.name, view.namespace, settings),
            "selector": ",".join(f"{key}={value}" for key, value in selector.items()),
            "revisions": _revisions(view, artifact, plan),
            "rollout": None if plan is None or _promoted(view, artifact, plan) else plan.state,
        }
    )
    # A canary that was rolled back is done; one that is promoted, once its artifact is everywhere.
    done = asleep or (rolled_out(view, artifact) if plan is None or plan.promote else plan.failed)
    problem = _trouble(view, artifact, plan)
    new = progressing(new, view, plan, done, problem)
    available = deployments.available(endpoint(view)) > 0
    waking = _slept(view) and not available and problem is None and settled(new, own)
    if asleep or waking:
        new = new.model_copy(update={"phase": ModelPhase.IDLE})
        message = ASLEEP if asleep else WAKING
        return with_condition(new, view, ConditionType.READY, True, Reason.SCALED_TO_ZERO, message)
    new = new.model_copy(update={"phase": phase(done and available, available, problem)})
    return _ready(new, view, artifact, plan, problem, available)


def progressing(
    new: PersonalizedModelStatus, view: ModelView, plan: Plan | None, done: bool, problem: Problem | None
) -> PersonalizedModelStatus:
    """The condition: whether something is being rolled out, or why not."""
    if plan and plan.failed:
        return with_condition(new, view, ConditionType.PROGRESSING, False, *plan.word)
    if done:
        return with_condition(new, view, ConditionType.PROGRESSING, False, *(problem or AVAILABLE))
    word = plan.word if plan else Problem(Reason.ROLLING_OUT, "pods are starting")
    return with_condition(new, view, ConditionType.PROGRESSING, problem is None, *(problem or word))


def _ready(
    new: PersonalizedModelStatus,
    view: ModelView,
    artifact: Artifact,
    plan: Plan | None,
    problem: Problem | None,
    available: bool,
) -> PersonalizedModelStatus:
    if not available:
        reason, message = problem or Problem(Reason.ROLLING_OUT, "pods are starting")
        return with_condition(new, view, ConditionType.READY, False, reason, message)
    now = rollout.current(new)
    if plan is None and not rolled_out(view, artifact):
        return with_condition(new, view, ConditionType.READY, True, Reason.ROLLING_OUT, "earlier pods serve meanwhile")
    message = f"serves {now.digest if now else artifact.digest}"
    return with_condition(new, view, ConditionType.READY, True, Reason.AVAILABLE, message)


def phase(done: bool, available: bool, problem: Problem | None) -> ModelPhase:
    """Where a model is that has, or should have, replicas."""
    if done:
        return ModelPhase.READY
    return ModelPhase.DEGRADED if available and problem else ModelPhase.PROGRESSING


def settled(status: PersonalizedModelStatus, backend: str) -> bool:
    """Whether nothing is being rolled out: `backend` draws all of the requests, and no canary is on its way."""
    now, failed = rollout.current(status), status.rollout is not None and status.rollout.failure is not None
    if now is None or now.weight != 100 or now.backend != backend or (status.rollout and not failed):
        return False
    return failed or now.digest == status.revisions[0].digest


def rolled_out(view: ModelView, artifact: Artifact) -> bool:
    """Whether every replica is of the wanted artifact, and one at least is available."""
    deployment = endpoint(view)
    if deployment is None or deployments.artifact_of(deployment["spec"]["template"]) != artifact.digest:
        return False
    return deployments.rolled_out(deployment)


def endpoint(view: ModelView) -> Body | None:
    """The Deployment of the model's own replicas."""
    return view.child("Deployment", names.endpoint(view.name))


def base(view: ModelView) -> PersonalizedModelStatus:
    """The status with the counts of the model's own replicas."""
    status = (endpoint(view) or {}).get("status", {})
    return view.status.model_copy(
        update={
            "observed_generation": view.generation,
            "replicas": status.get("replicas", 0),
            "ready_replicas": status.get("readyReplicas", 0),
        }
    )


def ready_pods(view: ModelView, digest: str, component: str) -> int:
    """Pods of the endpoint, or of the canary, that draw an artifact."""
    own = (pod for pod in view.pods if pod["metadata"].get("labels", {}).get(names.LABEL_COMPONENT) == component)
    return sum(1 for pod in own if deployments.artifact_of(pod) == digest and deployments.ready(pod))


def _promoted(view: ModelView, artifact: Artifact, plan: Plan) -> bool:
    return plan.promote and rolled_out(view, artifact)


def _trouble(view: ModelView, artifact: Artifact, plan: Plan | None) -> Problem | None:
    if plan and plan.failed:
        return None
    pods = (pod for pod in view.pods if deployments.artifact_of(pod) == artifact.digest)
    deployment = view.child("Deployment", names.canary(view.name)) if plan and not plan.promote else endpoint(view)
    return deployments.trouble(pods, deployment)


def _revisions(view: ModelView, artifact: Artifact, plan: Plan | None) -> list[Revision]:
    old, own = view.status, names.model_backend(view.namespace, view.name)
    now = rollout.current(old)
    ready = ready_pods(view, artifact.digest, names.COMPONENT_SERVER) > 0
    if plan and not _promoted(view, artifact, plan):
        assert now is not None  # `rollout.tries`: a canary is of something
        tried = _tried(view, artifact, plan)
        return revisions.listed(old, tried, _kept(view, now, 100 - tried.weight))
    if ready or plan or (now and (now.digest, now.backend or own) == (artifact.digest, own)):
        return revisions.listed(old, revisions.serving(artifact, own, ready))
    if now and now.digest == artifact.digest:
        # A pool draws it until pods of its own do.
        return revisions.listed(old, _kept(view, now, 100))
    return revisions.listed(old, revisions.starting(old, artifact), *([_kept(view, now, 100)] if now else []))


def _tried(view: ModelView, artifact: Artifact, plan: Plan) -> Revision:
    ready = ready_pods(view, artifact.digest, names.COMPONENT_CANARY) > 0
    backend = None if plan.failed else names.canary_backend(view.namespace, view.name)
    return Revision(
        digest=artifact.digest, uri=artifact.uri, weight=plan.weight, ready=ready and not plan.failed, backend=backend
    )  # fmt: skip


def _kept(view: ModelView, now: Revision, weight: int) -> Revision:
    """The artifact that serves until the next one does."""
    own = names.model_backend(view.namespace, view.name)
    backend = now.backend or own
    pods = ready_pods(view, now.digest, names.COMPONENT_SERVER) > 0
    ready = pods if backend == own else now.ready
    return now.model_copy(update={"weight": weight, "ready": ready, "promoted": True, "backend": backend})
