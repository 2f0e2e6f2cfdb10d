"""What a PersonalizedModel needs next. Pure: the same view gives the same decision."""

import re

from pydantic import ValidationError

from dreambooth_api import names
from dreambooth_api.model import Artifact, PersonalizedModelSpec, PersonalizedModelStatus
from dreambooth_api.parse import InvalidResource, parse_model
from dreambooth_api.reasons import Reason
from dreambooth_api.serving import ServingMode
from dreambooth_operator import allowances, drift, manifests_model, model_status, pods
from dreambooth_operator import status as statuses
from dreambooth_operator.settings import Settings
from dreambooth_operator.views import NOTHING, Body, ChildRef, Decision, ModelView, Problem

RETRY = 5.0
# How often a model that is not ready is looked at again when no event comes, seconds.
RECHECK = 30.0


def decide_model(view: ModelView, settings: Settings) -> Decision:
    """Children, status and events for one model."""
    if view.deleted:
        return NOTHING
    try:
        spec = parse_model({key: view.body.get(key) for key in ("metadata", "spec")}).spec
    except InvalidResource as e:
        return refused(view, Problem(Reason.INVALID_SPEC, str(e)), again=None)
    if spec.serving.mode == ServingMode.SHARED:
        message = "serving.mode Shared needs pools, which this release does not have: use Dedicated"
        return refused(view, Problem(Reason.INVALID_SPEC, message), again=None)
    artifact = _artifact(view, spec)
    if isinstance(artifact, Problem):
        return refused(view, artifact, again=None)
    template = spec.serving.template
    problem = _base_secret(view) or allowances.refusal(template, "spec.serving.template", settings.pod_allowances)
    if problem:
        return refused(view, problem, again=None)
    if view.missing and not view.children:
        return refused(view, view.missing, again=RETRY)
    return _serve(view, spec, artifact, settings)


def refused(view: ModelView, problem: Problem, again: float | None = RETRY) -> Decision:
    """The model cannot be rolled out for now; what serves already goes on."""
    old = statuses.read(PersonalizedModelStatus, view.body)
    return _write(view, old, model_status.held(view, old, problem), (), again)


def _serve(view: ModelView, spec: PersonalizedModelSpec, artifact: Artifact, settings: Settings) -> Decision:
    body, spec = _with_base_of_job(view, spec)
    wanted = (
        manifests_model.service(view.body),
        manifests_model.deployment(body, spec, artifact, settings),
        manifests_model.autoscaler(view.body, spec),
    )
    old = statuses.read(PersonalizedModelStatus, view.body)
    refs = [ChildRef(manifest["kind"], manifest["metadata"]["name"]) for manifest in wanted]
    if taken := next((ref for ref in refs if ref in view.foreign), None):
        message = f"the {taken.kind} {taken.name} exists and is not this model's: delete it, or rename the model"
        return refused(view, Problem(Reason.NAME_CONFLICT, message))
    apply = tuple(manifest for manifest in wanted if drift.needs_apply(view, manifest))
    new = model_status.serving(view, old, artifact)
    ready = model_status.rolled_out(view, artifact)
    again = 1.0 if view.leaving.intersection(refs) else None if ready else RECHECK
    return _write(view, old, new, apply, again)


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


def _artifact(view: ModelView, spec: PersonalizedModelSpec) -> Artifact | Problem:
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


def _write(
    view: ModelView,
    old: PersonalizedModelStatus,
    new: PersonalizedModelStatus,
    apply: tuple[Body, ...],
    again: float | None,
) -> Decision:
    told = statuses.model_events(old, new)
    return Decision(told=told, status=statuses.changed(new, view), apply=apply, again=again)
