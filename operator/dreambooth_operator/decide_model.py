"""What a PersonalizedModel needs next. Pure: the same view gives the same decision."""

import re
from dataclasses import replace

from pydantic import ValidationError

from dreambooth_api import names
from dreambooth_api.model import Artifact, PersonalizedModelSpec, PersonalizedModelStatus
from dreambooth_api.parse import InvalidResource, parse_model
from dreambooth_api.reasons import ConditionType, Reason
from dreambooth_api.serving import RolloutStrategy, ServingMode
from dreambooth_operator import (
    allowances,
    decide_shared,
    deployments,
    drift,
    manifests_model,
    manifests_serving,
    model_status,
    pods,
    rollout,
    scaling,
)
from dreambooth_operator import status as statuses
from dreambooth_operator.rollout import Plan
from dreambooth_operator.settings import Settings
from dreambooth_operator.views import NOTHING, Body, ChildRef, Decision, ModelView, Problem

RETRY = 5.0
# How often a model that is not ready is looked at again when no event comes, seconds.
RECHECK = 30.0


def decide_model(view: ModelView, settings: Settings) -> Decision:
    """Children, status and events for one model. Whoever waits for what sleeps wakes it, whatever is wrong."""
    if view.deleted:
        return NOTHING
    decision = _decide(view, settings)
    if decision.scale or not _waited_for(view):
        return decision
    return replace(decision, scale=((names.endpoint(view.name), 1),))


def _decide(view: ModelView, settings: Settings) -> Decision:
    try:
        spec = parse_model(view.body).spec
    except InvalidResource as e:
        return refused(view, Problem(Reason.INVALID_SPEC, str(e)), again=None)
    if problem := _needs_gateway(spec, settings):
        return refused(view, problem, again=None)
    artifact = wanted_artifact(view, spec)
    if isinstance(artifact, Problem):
        return refused(view, artifact, again=None)
    if spec.serving.mode == ServingMode.SHARED:
        return _locked(view, decide_shared.serve(view, spec, artifact, settings))
    template = spec.serving.template
    problem = _base_secret(view) or allowances.refusal(template, "spec.serving.template", settings.pod_allowances)
    if problem:
        return refused(view, problem, again=None)
    if view.missing and not view.children:
        return refused(view, view.missing, again=RETRY)
    return _locked(view, _serve(view, spec, artifact, settings))


def _waited_for(view: ModelView) -> bool:
    """Whether somebody waits for replicas of its own, which sleep."""
    if not scaling.waited_for(model_status.endpoint(view), view.demand):
        return False
    now = rollout.current(view.status)
    own = names.model_backend(view.namespace, view.name)
    return now is not None and (now.backend or own) == own


def refused(view: ModelView, problem: Problem, again: float | None = RETRY) -> Decision:
    """The model cannot be rolled out for now; what serves already goes on."""
    return statuses.decision(view, view.status, model_status.held(view, problem), again=again)


def unverified(view: ModelView, settings: Settings) -> Artifact | None:
    """The artifact that the pool of a Shared model is to be asked about; None when there is nothing to ask."""
    try:
        spec = parse_model(view.body).spec
    except InvalidResource:
        return None
    artifact = wanted_artifact(view, spec)
    if view.deleted or isinstance(artifact, Problem) or not settings.gateway_url:
        return None
    return None if decide_shared.verified(view, spec, artifact) else artifact


def _needs_gateway(spec: PersonalizedModelSpec, settings: Settings) -> Problem | None:
    if settings.gateway_url:
        return None
    asked = {
        "spec.serving.mode Shared": spec.serving.mode == ServingMode.SHARED,
        "spec.serving.access": spec.serving.access is not None,
        "spec.serving.minReplicas 0": spec.serving.min_replicas == 0,
        "spec.rollout.strategy Canary": spec.rollout.strategy == RolloutStrategy.CANARY,
    }
    for what, used in asked.items():
        if used:
            message = (
                f"{what} needs the gateway, which is not installed: set the chart's gateway.enabled, or do without"
            )
            return Problem(Reason.INVALID_SPEC, message)
    return None


def _serve(view: ModelView, spec: PersonalizedModelSpec, artifact: Artifact, settings: Settings) -> Decision:
    body, spec = _with_base_of_job(view, spec)
    plan = _plan(view, spec, artifact)
    wanted = _wanted(view, body, spec, plan, artifact, settings)
    refs = [ChildRef(manifest["kind"], manifest["metadata"]["name"]) for manifest in wanted]
    if taken := next((ref for ref in refs if ref in view.foreign), None):
        message = f"the {taken.kind} {taken.name} exists and is not this model's: delete it, or rename the model"
        return refused(view, Problem(Reason.NAME_CONFLICT, message))
    apply = tuple(manifest for manifest in wanted if drift.needs_apply(view, manifest))
    new = model_status.serving(view, artifact, plan, False, settings)
    scale, later = _scale(view, spec, new, settings)
    if scale == 0:
        new = model_status.serving(view, artifact, plan, True, settings)
    deployment = model_status.endpoint(view)
    scaled = deployment is not None and scale != scaling.replicas(deployment)
    rest = scale == 0 or deployments.rolled_out(deployment)
    again = 1.0 if view.leaving.intersection(refs) else rollout.LOOK if plan and not plan.failed else later
    return statuses.decision(
        view,
        view.status,
        new,
        apply=apply,
        scale=((names.endpoint(view.name), scale),) if scaled else (),
        delete=_unwanted(view, spec, new),
        fault=plan.fault if plan else None,
        again=again if again is not None or rest else RECHECK,
    )


def _plan(view: ModelView, spec: PersonalizedModelSpec, artifact: Artifact) -> Plan | None:
    """The canary's way, if there is one; one whose strategy was changed to Rolling meanwhile is promoted at once."""
    own = names.model_backend(view.namespace, view.name)
    state = rollout.begun(view, artifact)
    if not rollout.tries(view.status, artifact, spec.rollout, own):
        return rollout.finishing(view.status, artifact)
    stable = scaling.replicas(model_status.endpoint(view))
    need = rollout.replicas(state, spec.rollout, stable)
    enough = model_status.ready_pods(view, artifact.digest, names.COMPONENT_CANARY) >= need
    return rollout.plan(view, state, spec.rollout, enough, view.seen)


def _wanted(
    view: ModelView,
    body: Body,
    spec: PersonalizedModelSpec,
    plan: Plan | None,
    artifact: Artifact,
    settings: Settings,
) -> list[Body]:
    """The children that there are to be."""
    now, stable = rollout.current(view.status), artifact
    if plan and not plan.promote and now and now.uri:
        stable = Artifact(uri=now.uri, digest=now.digest)
    found = [
        manifests_model.service(view.body),
        manifests_model.deployment(body, spec, stable, settings),
        *manifests_serving.scalers(manifests_serving.MODEL, view.body, spec.serving, settings),
    ]
    if plan and not plan.failed and not (plan.promote and model_status.rolled_out(view, artifact)):
        replicas = rollout.replicas(plan.state, spec.rollout, scaling.replicas(model_status.endpoint(view)))
        found.append(manifests_model.canary(body, spec, artifact, replicas, settings))
    return found


def _unwanted(view: ModelView, spec: PersonalizedModelSpec, new: PersonalizedModelStatus) -> tuple[ChildRef, ...]:
    """Children whose time is over: a canary that has no part in the requests any more, and a needless budget."""
    canary = ChildRef("Deployment", names.canary(view.name))
    budget = ChildRef("PodDisruptionBudget", names.endpoint(view.name))
    over = new.rollout is None or new.rollout.failure is not None
    gone = {canary: over, budget: spec.serving.max_replicas == 1}
    return tuple(ref for ref, unwanted in gone.items() if unwanted and ref in view.children)


def _scale(
    view: ModelView,
    spec: PersonalizedModelSpec,
    new: PersonalizedModelStatus,
    settings: Settings,
) -> tuple[int, float | None]:
    """How many replicas there are to be, as far as no autoscaler says; and when to look again."""
    deployment = model_status.endpoint(view)
    if deployment is None or not settings.gateway_url:
        return scaling.replicas(deployment), None
    needed = not model_status.settled(new, names.model_backend(view.namespace, view.name))
    ready = scaling.ready_for(statuses.condition_of(view.status, ConditionType.READY), view.now)
    return scaling.wanted(scaling.replicas(deployment), spec.serving, view.demand, ready, needed)


def _locked(view: ModelView, decision: Decision) -> Decision:
    """Without the Secret that holds its keys nobody can ask, whatever runs."""
    if view.locked is None:
        return decision
    body = {**view.body, "status": decision.status or view.body.get("status") or {}}
    old, new = view.status, statuses.read(PersonalizedModelStatus, body)
    # Since when it is not ready the old condition knows.
    was = statuses.condition_of(old, ConditionType.READY)
    kept = [was if was and found.type == ConditionType.READY else found for found in new.conditions]
    new = new.model_copy(update={"conditions": kept})
    new = statuses.with_condition(new, view, ConditionType.READY, False, *view.locked)
    return replace(decision, status=statuses.changed(new, view), told=statuses.serving_events(old, new))


def _with_base_of_job(view: ModelView, spec: PersonalizedModelSpec) -> tuple[Body, PersonalizedModelSpec]:
    """The model with what its server needs to reach the base: the claim that holds it, and the Secret that opens it. A
    job writes both into the model that it publishes; one that refers to a job takes them from there."""
    base = (view.job or {}).get("spec", {}).get("baseModel") if spec.job_ref else None
    if not base:
        return view.body, spec
    template = pods.with_base(spec.serving.template, base["uri"])
    spec = spec.model_copy(update={"serving": spec.serving.model_copy(update={"template": template})})
    secret = (base.get("secretRef") or {}).get("name")
    given = view.body["metadata"].get("annotations") or {}
    annotations = {names.ANNOTATION_BASE_SECRET: secret, **given} if secret else given
    return {**view.body, "metadata": {**view.body["metadata"], "annotations": annotations}}, spec


def _base_secret(view: ModelView) -> Problem | None:
    """What is wrong with the annotation that names a Secret: no schema looks at annotations."""
    secret = (view.body["metadata"].get("annotations") or {}).get(names.ANNOTATION_BASE_SECRET)
    if not secret or re.fullmatch(names.OBJECT_PATTERN, secret):
        return None
    message = f"metadata.annotations[{names.ANNOTATION_BASE_SECRET}]: {secret[:253]!r} is no name of a Secret"
    return Problem(Reason.INVALID_SPEC, message)


def wanted_artifact(view: ModelView, spec: PersonalizedModelSpec) -> Artifact | Problem:
    """The artifact that the model is to serve, or why there is none."""
    if spec.artifact:
        return spec.artifact
    assert spec.job_ref is not None  # parse_model: exactly one of the two
    name = spec.job_ref.name
    if view.job is None:
        return Problem(Reason.ARTIFACT_NOT_FOUND, f"there is no DreamBoothJob {name} in this namespace")
    found = (view.job.get("status") or {}).get("artifact")
    if not found:
        return Problem(Reason.JOB_NOT_FINISHED, f"the DreamBoothJob {name} has not published an artifact")
    try:
        return Artifact.model_validate(found)
    except ValidationError as e:
        return Problem(Reason.ARTIFACT_INVALID, f"what the DreamBoothJob {name} published is no artifact: {e}")
