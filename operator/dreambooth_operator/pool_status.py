"""The status of a pool in each of its situations. Pure."""

from dreambooth_api import names
from dreambooth_api.pool import ServingPoolStatus
from dreambooth_api.reasons import ConditionType, ModelPhase, Reason
from dreambooth_operator import deployments, scaling
from dreambooth_operator.manifests_serving import POOL, selector
from dreambooth_operator.model_status import ASLEEP, WAKING
from dreambooth_operator.status import condition_of, with_condition
from dreambooth_operator.views import Body, PoolView, Problem


def held(view: PoolView, old: ServingPoolStatus, problem: Problem) -> ServingPoolStatus:
    """It cannot be as its spec says; replicas of an earlier one serve on, also if they sleep or are being woken."""
    new, live, before = _base(view, old), deployment(view), condition_of(old, ConditionType.READY)
    asleep = live is not None and scaling.replicas(live) == 0
    waking = before is not None and before.status == "True" and deployments.trouble(view.pods, live) is None
    if deployments.available(live) or asleep or (live is not None and waking):
        message = f"an earlier spec is served: {problem.message}"
        return with_condition(new, view, ConditionType.READY, True, problem.reason, message)
    return with_condition(new, view, ConditionType.READY, False, *problem)


def serving(view: PoolView, old: ServingPoolStatus, asleep: bool) -> ServingPoolStatus:
    """Replicas run, start, or (`asleep`) are not to be."""
    new, live = _base(view, old), deployment(view)
    problem = deployments.trouble(view.pods, live)
    if asleep:
        return with_condition(new, view, ConditionType.READY, True, Reason.SCALED_TO_ZERO, ASLEEP)
    if deployments.available(live):
        reason, message = (Reason.AVAILABLE, "serves") if deployments.rolled_out(live) else _rolling(problem)
        return with_condition(new, view, ConditionType.READY, True, reason, message)
    before = condition_of(old, ConditionType.READY)
    if before and before.reason == Reason.SCALED_TO_ZERO and problem is None:
        return with_condition(new, view, ConditionType.READY, True, Reason.SCALED_TO_ZERO, WAKING)
    reason, message = problem or Problem(Reason.ROLLING_OUT, "pods are starting")
    return with_condition(new, view, ConditionType.READY, False, reason, message)


def phase(status: ServingPoolStatus) -> ModelPhase:
    """Where a pool is, in the words of a model's phase; its status has none. `Degraded`: not as its spec says."""
    ready = condition_of(status, ConditionType.READY)
    if ready is None:
        return ModelPhase.PENDING
    known = {
        Reason.AVAILABLE: ModelPhase.READY,
        Reason.SCALED_TO_ZERO: ModelPhase.IDLE,
        Reason.ROLLING_OUT: ModelPhase.PROGRESSING,
    }
    return next((found for reason, found in known.items() if reason == ready.reason), ModelPhase.DEGRADED)


def deployment(view: PoolView) -> Body | None:
    """The pool's Deployment."""
    return view.child("Deployment", names.pool(view.name))


def _rolling(problem: Problem | None) -> Problem:
    return problem or Problem(Reason.ROLLING_OUT, "earlier pods serve meanwhile")


def _base(view: PoolView, old: ServingPoolStatus) -> ServingPoolStatus:
    status = (deployment(view) or {}).get("status", {})
    return old.model_copy(
        update={
            "observed_generation": view.generation,
            "replicas": status.get("replicas", 0),
            "ready_replicas": status.get("readyReplicas", 0),
            "selector": ",".join(f"{key}={value}" for key, value in selector(POOL, view.name).items()),
            "subjects": view.subjects,
        }
    )
