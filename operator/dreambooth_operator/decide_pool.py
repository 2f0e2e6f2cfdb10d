"""What a ServingPool needs next. Pure: the same view gives the same decision."""

from dreambooth_api import names
from dreambooth_api.parse import InvalidResource, parse_pool
from dreambooth_api.pool import ServingPoolSpec, ServingPoolStatus
from dreambooth_api.reasons import ConditionType, Reason
from dreambooth_operator import (
    allowances,
    deployments,
    drift,
    manifests_pool,
    manifests_serving,
    pool_status,
    scaling,
)
from dreambooth_operator import status as statuses
from dreambooth_operator.settings import Settings
from dreambooth_operator.views import NOTHING, Body, ChildRef, Decision, PoolView, Problem

RETRY = 5.0
# How often a pool that is not ready is looked at again when no event comes, seconds.
RECHECK = 30.0
# What a Ready condition says of a spec that is rolled out.
PROVEN = frozenset({Reason.AVAILABLE, Reason.SCALED_TO_ZERO})


def decide_pool(view: PoolView, settings: Settings) -> Decision:
    """Children, status and events for one pool."""
    if view.deleted:
        return NOTHING
    try:
        spec = parse_pool(view.body).spec
    except InvalidResource as e:
        return refused(view, Problem(Reason.INVALID_SPEC, str(e)), again=None)
    if not settings.gateway_url:
        message = (
            "a ServingPool is reached through the gateway, which is not installed: set the chart's gateway.enabled"
        )
        return refused(view, Problem(Reason.INVALID_SPEC, message), again=None)
    if problem := allowances.refusal(spec.template, "spec.template", settings.pod_allowances):
        return refused(view, problem, again=None)
    if view.missing and not view.children:
        return refused(view, view.missing, again=RETRY)
    return _serve(view, spec, settings)


def refused(view: PoolView, problem: Problem, again: float | None = RETRY) -> Decision:
    """The pool cannot be as its spec says, for now; what serves already goes on, and is woken as ever."""
    old = statuses.read(ServingPoolStatus, view.body)
    wake = scaling.waited_for(pool_status.deployment(view), view.demand)
    scale = ((names.pool(view.name), 1),) if wake else ()
    return statuses.decision(view, old, pool_status.held(view, old, problem), scale=scale, again=again)


def _serve(view: PoolView, spec: ServingPoolSpec, settings: Settings) -> Decision:
    wanted = _wanted(view.body, spec, settings)
    refs = [ChildRef(manifest["kind"], manifest["metadata"]["name"]) for manifest in wanted]
    if taken := next((ref for ref in refs if ref in view.foreign), None):
        message = f"the {taken.kind} {taken.name} exists and is not this pool's: delete it, or rename the pool"
        return refused(view, Problem(Reason.NAME_CONFLICT, message))
    old, live = statuses.read(ServingPoolStatus, view.body), pool_status.deployment(view)
    scale, later = _scale(view, spec, old)
    budget = ChildRef("PodDisruptionBudget", names.pool(view.name))
    rest = deployments.rolled_out(live) or scale == 0
    again = 1.0 if view.leaving.intersection(refs) else later
    return statuses.decision(
        view,
        old,
        pool_status.serving(view, old, asleep=scale == 0),
        apply=tuple(manifest for manifest in wanted if drift.needs_apply(view, manifest)),
        scale=((names.pool(view.name), scale),) if live and scale != scaling.replicas(live) else (),
        delete=(budget,) if budget in view.children and budget not in refs else (),
        again=again if again is not None or rest else RECHECK,
    )


def _wanted(body: Body, spec: ServingPoolSpec, settings: Settings) -> list[Body]:
    return [
        manifests_pool.deployment(body, spec, settings),
        *manifests_serving.scalers(manifests_serving.POOL, body, spec, settings),
    ]


def _scale(view: PoolView, spec: ServingPoolSpec, old: ServingPoolStatus) -> tuple[int, float | None]:
    """How many replicas there are to be, as far as no autoscaler says. A subject that was never verified, and a spec
    that was never rolled out, need one."""
    live = pool_status.deployment(view)
    if live is None:
        return 1, None
    ready = statuses.condition_of(old, ConditionType.READY)
    needed = view.unverified > 0 or ready is None or ready.reason not in PROVEN
    return scaling.wanted(scaling.replicas(live), spec, view.demand, scaling.ready_for(ready, view.now), needed)
