"""What a model needs next that is an adapter on a pool: to be verified there, and its share of the requests. Pure.

It has no replicas of its own; those of an earlier `Dedicated` go once the pool draws it.
"""

from dreambooth_api import names
from dreambooth_api.adapters import AdapterPhase
from dreambooth_api.model import Artifact, PersonalizedModelSpec, PersonalizedModelStatus, Revision
from dreambooth_api.pool import ServingPoolStatus
from dreambooth_api.reasons import ConditionType, ModelPhase, Reason
from dreambooth_operator import manifests_model, model_status, revisions, rollout
from dreambooth_operator import status as statuses
from dreambooth_operator.rollout import Plan
from dreambooth_operator.settings import Settings
from dreambooth_operator.status import with_condition
from dreambooth_operator.views import ChildRef, Decision, ModelView, Problem

# How often the pool is asked for an artifact that it fetches; and when nothing is known to happen, seconds.
ASK, RECHECK = 1.0, 30.0


def backend(view: ModelView, spec: PersonalizedModelSpec) -> str:
    """The key of the pool's replicas."""
    return names.pool_backend(view.namespace, spec.serving.pool)


def verified(view: ModelView, spec: PersonalizedModelSpec, artifact: Artifact) -> bool:
    """Whether a replica of this pool said once that the artifact is good."""
    known = revisions.of(view.status, artifact.digest)
    return bool(known and known.ready and known.backend == backend(view, spec) and known.uri == artifact.uri)


def serve(view: ModelView, spec: PersonalizedModelSpec, artifact: Artifact, settings: Settings) -> Decision:
    """Status and events; no children."""
    if view.pool is None:
        message = f"spec.serving.pool: there is no ServingPool {spec.serving.pool} in this namespace: "
        problem = Problem(Reason.POOL_NOT_FOUND, f"{message}have an administrator make it, or name another")
        return statuses.decision(view, view.status, model_status.held(view, problem), again=None)
    state = view.adapter
    good = verified(view, spec, artifact) or bool(state and state.phase == AdapterPhase.READY)
    if not good and state and state.phase == AdapterPhase.FAILED:
        new = model_status.held(view, Problem(state.reason or Reason.ARTIFACT_INVALID, state.message))
        if state.reason == Reason.STORE_UNAVAILABLE and new.phase == ModelPhase.PENDING:
            # It is asked for again: until the store is back the pool must not sleep.
            new = new.model_copy(update={"phase": ModelPhase.PROGRESSING})
        return statuses.decision(view, view.status, new, again=RECHECK)
    plan = _plan(view, spec, artifact, good)
    new = _status(view, spec, artifact, plan, good, settings)
    again = ASK if state and not good else rollout.LOOK if plan and not plan.failed else None if good else RECHECK
    fault = plan.fault if plan else None
    return statuses.decision(view, view.status, new, delete=_unwanted(view, new), fault=fault, again=again)


def _plan(view: ModelView, spec: PersonalizedModelSpec, artifact: Artifact, good: bool) -> Plan | None:
    if not rollout.tries(view.status, artifact, spec.rollout, backend(view, spec)):
        return None
    return rollout.plan(view, rollout.begun(view, artifact), spec.rollout, good, view.seen)


def _status(
    view: ModelView,
    spec: PersonalizedModelSpec,
    artifact: Artifact,
    plan: Plan | None,
    good: bool,
    settings: Settings,
) -> PersonalizedModelStatus:
    new = model_status.base(view).model_copy(
        update={
            "url": manifests_model.url(view.name, view.namespace, settings),
            "selector": None,
            "revisions": _revisions(view, spec, artifact, plan, good),
            "rollout": None if plan is None or plan.promote else plan.state,
        }
    )
    trouble, now = _trouble(view, spec), rollout.current(new)
    word = None if good else _waiting(view, spec, trouble)
    serves, done = now is not None and trouble is None, good and (plan is None or plan.promote or plan.failed)
    phase = model_status.phase(done and serves, serves, word if trouble else None)
    new = new.model_copy(update={"phase": phase})
    if word:
        new = with_condition(new, view, ConditionType.PROGRESSING, trouble is None, *word)
    else:
        new = model_status.progressing(new, view, plan, done, None)
    if serves and now:
        message = f"the pool {spec.serving.pool} draws {now.digest}"
        return with_condition(new, view, ConditionType.READY, True, Reason.AVAILABLE, message)
    return with_condition(new, view, ConditionType.READY, False, *(trouble or word or model_status.AVAILABLE))


def _revisions(
    view: ModelView,
    spec: PersonalizedModelSpec,
    artifact: Artifact,
    plan: Plan | None,
    good: bool,
) -> list[Revision]:
    old, pool = view.status, backend(view, spec)
    now = rollout.current(old)
    if plan and not plan.promote and now:
        tried = Revision(
            digest=artifact.digest, uri=artifact.uri, weight=plan.weight, ready=good, backend=pool if good else None
        )  # fmt: skip
        return revisions.listed(old, tried, now.model_copy(update={"weight": 100 - plan.weight, "promoted": True}))
    if good:
        return revisions.listed(old, revisions.serving(artifact, pool, True))
    if now is None:
        return revisions.listed(old, revisions.starting(old, artifact))
    kept = now.model_copy(update={"weight": 100, "promoted": True})
    newest = [] if now.digest == artifact.digest else [revisions.starting(old, artifact)]
    return revisions.listed(old, *newest, kept)


def _trouble(view: ModelView, spec: PersonalizedModelSpec) -> Problem | None:
    """Why the pool serves nobody. A pool that sleeps is ready: the next request wakes it."""
    assert view.pool is not None
    ready = statuses.condition_of(statuses.read(ServingPoolStatus, view.pool), ConditionType.READY)
    if ready and ready.status == "True":
        return None
    message = ready.message if ready else "it was just made"
    reason = Reason(ready.reason) if ready and ready.reason in set(Reason) else Reason.UNAVAILABLE
    return Problem(reason, f"the pool {spec.serving.pool}: {message}")


def _waiting(view: ModelView, spec: PersonalizedModelSpec, trouble: Problem | None) -> Problem:
    if trouble:
        return trouble
    if view.adapter is None:
        return Problem(Reason.ROLLING_OUT, f"waiting for a replica of the pool {spec.serving.pool}")
    return Problem(Reason.ROLLING_OUT, f"the pool {spec.serving.pool} fetches and verifies the artifact")


def _unwanted(view: ModelView, new: PersonalizedModelStatus) -> tuple[ChildRef, ...]:
    """Replicas of its own, once none of the requests goes there any more."""
    own = (names.model_backend(view.namespace, view.name), names.canary_backend(view.namespace, view.name))
    used = [r for r in new.revisions if r.weight and (r.backend is None or r.backend in own)]
    return () if used or rollout.current(new) is None else tuple(view.children)
