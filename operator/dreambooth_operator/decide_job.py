"""What a DreamBoothJob needs next. Pure: the same view gives the same decision."""

from collections.abc import Callable
from dataclasses import replace

from dreambooth_api import names
from dreambooth_api.job import DreamBoothJobSpec, DreamBoothJobStatus
from dreambooth_api.parse import InvalidResource, parse_job
from dreambooth_api.reasons import Phase, Reason
from dreambooth_api.result import TrainResult
from dreambooth_operator import allowances, causes, clock, drift, job_results, job_status, manifests_job
from dreambooth_operator import status as statuses
from dreambooth_operator.settings import Settings
from dreambooth_operator.views import NOTHING, Body, ChildRef, Decision, JobView, Problem

# How often a running job is asked for its progress, and how soon a pending one is looked at again, seconds.
POLL, RETRY = 10.0, 5.0
# Other ranks may still be writing their logs when rank 0 is done.
LINGER = 60.0
AFTER_PREPARING = (Phase.TRAINING, Phase.SCORING, Phase.PUBLISHING)
# Children by kind and name, and how the manifest of each is made.
Wanted = dict[ChildRef, Callable[[], Body]]


def decide_job(view: JobView, settings: Settings) -> Decision:
    """Children, status and events for one job."""
    if view.deleted:
        # The garbage collector takes the children; making one now would only give it more to do.
        return NOTHING
    old = statuses.read(DreamBoothJobStatus, view.body)
    if old.phase and old.phase.final:
        return _after_the_end(view, old)
    try:
        spec = parse_job(view.body).spec
    except InvalidResource as e:
        problem = Problem(Reason.INVALID_SPEC, str(e))
        # What runs was understood once: an operator of another release must not end it.
        return refused(view, problem, final=not view.children)
    return _decide(view, old, spec, settings)


def refused(view: JobView, problem: Problem, final: bool) -> Decision:
    """The API server did not take a child: for good, or for now."""
    old = statuses.read(DreamBoothJobStatus, view.body)
    if final:
        return _end(view, old, problem)
    return replace(_write(view, old, job_status.troubled(view, old, problem)), again=RETRY)


def _decide(view: JobView, old: DreamBoothJobStatus, spec: DreamBoothJobSpec, settings: Settings) -> Decision:
    result = job_results.train_result(view)
    if result or old.artifact:
        return _publish(view, old, spec, result, settings)
    if problem := job_results.over(view, spec):
        if problem is job_results.WAIT:
            return Decision(again=1.0)
        return _end(view, old, problem)
    if spec.suspend:
        return _suspend(view, old, spec, settings)
    prepare, train = _jobs(view)
    if not (causes.complete(prepare) or train or old.phase in AFTER_PREPARING):
        return _prepare(view, old, spec, settings)
    return _train(view, old, spec, settings)


def _prepare(view: JobView, old: DreamBoothJobStatus, spec: DreamBoothJobSpec, settings: Settings) -> Decision:
    prepare, _ = _jobs(view)
    if prepare is None and (problem := _forbidden(spec, settings)):
        return _end(view, old, problem)
    if prepare is None and (problem := view.missing or _conflict(view, spec)):
        return _hold(view, old, spec, problem)
    wanted: Wanted = {
        ChildRef("Job", names.prepare_job(view.name)): lambda: manifests_job.prepare_job(view.body, spec, settings),
    }
    new = job_status.running(view, old, Phase.PREPARING, view.prepare_pods, settings)
    return _run(view, old, new, spec, wanted)


def _train(view: JobView, old: DreamBoothJobStatus, spec: DreamBoothJobSpec, settings: Settings) -> Decision:
    _, train = _jobs(view)
    if train is None and (problem := _forbidden(spec, settings)):
        return _end(view, old, problem)
    if causes.complete(train) and not view.train_pods:
        # Nobody saw what the pods said at their end. The checkpoint is in the store: run again, it will be short.
        return Decision(delete=(ChildRef("Job", names.training(view.name)),), again=RETRY)
    wanted: Wanted = {
        ChildRef("Service", names.training(view.name)): lambda: manifests_job.service(view.body),
        ChildRef("Job", names.training(view.name)): lambda: manifests_job.train_job(view.body, spec, settings),
    }
    new = job_status.running(view, old, job_results.training_phase(view, old), view.train_pods, settings)
    return _run(view, old, new, spec, wanted)


def _run(
    view: JobView,
    old: DreamBoothJobStatus,
    new: DreamBoothJobStatus,
    spec: DreamBoothJobSpec,
    wanted: Wanted,
) -> Decision:
    """Have `wanted`, unless the pods have been waiting for too long."""
    refs = wanted.keys()
    if taken := refs & view.foreign:
        return _end(view, old, job_results.name_taken(*sorted(taken)[0]))
    jobs = [job for job in (view.child(*ref) for ref in refs if ref.kind == "Job") if job]
    if stopped := next(filter(job_results.held, jobs), None):
        return _queue(view, old, stopped, wanted)
    left = spec.start_deadline_seconds - job_results.waited(view)
    if left < 0:
        return _end(view, old, job_results.gave_up(view, spec))
    decision = _write(view, old, new)
    # A Job is made once: of one that is there nobody needs the manifest.
    of_use = (make for ref, make in wanted.items() if ref.kind != "Job" or ref not in view.children)
    missing = [manifest for make in of_use if drift.needs_apply(view, manifest := make())]
    resume = tuple((job["metadata"]["name"], False) for job in jobs if job_results.suspended(job))
    again = 1.0 if refs & view.leaving else job_results.pause(view, spec, left, POLL)
    return replace(decision, apply=tuple(missing), suspend=resume, again=again)


def _suspend(view: JobView, old: DreamBoothJobStatus, spec: DreamBoothJobSpec, settings: Settings) -> Decision:
    """No pods. A suspended Job whose pods are gone and that was made for other pods than are asked for now, goes."""
    decision = _write(view, old, job_status.suspended(view, old))
    suspend, outdated = _stop(view)
    for job, wanted, pods in (
        (_jobs(view)[0], manifests_job.prepare_job(view.body, spec, settings), view.prepare_pods),
        (_jobs(view)[1], manifests_job.train_job(view.body, spec, settings), view.train_pods),
    ):
        if job is None or causes.finished(job) or not job_results.suspended(job):
            continue
        if all(map(job_results.over_and_done, pods)) and job_results.outdated(job, wanted):
            outdated += (ChildRef("Job", wanted["metadata"]["name"]),)
    return replace(decision, suspend=suspend, delete=tuple(dict.fromkeys(outdated)))


def _queue(view: JobView, old: DreamBoothJobStatus, job: Body, wanted: Wanted) -> Decision:
    """Kueue, or somebody else, holds the Job: only they resume it. One that stands in another queue than is asked for
    now is made anew, to stand in that one."""
    fresh = job["metadata"]["name"] == names.prepare_job(view.name) or old.phase == Phase.PREPARING
    decision = _write(view, old, job_status.queued(view, old, job_results.waiting(job), fresh), again=None)
    asked = wanted[ChildRef("Job", job["metadata"]["name"])]()
    if (queue := job_results.queue_of(asked)) and queue != job_results.queue_of(job):
        return replace(decision, delete=(ChildRef("Job", job["metadata"]["name"]),), again=1.0)
    others = (make() for ref, make in wanted.items() if ref.kind != "Job")
    missing = tuple(manifest for manifest in others if drift.needs_apply(view, manifest))
    return replace(decision, apply=missing)


def _forbidden(spec: DreamBoothJobSpec, settings: Settings) -> Problem | None:
    """What the overrides of its pods ask for and the administrator does not allow."""
    training = allowances.refusal(spec.topology.template, "spec.topology.template", settings.pod_allowances)
    serving = spec.publish.serving.template
    return training or allowances.refusal(serving, "spec.publish.serving.template", settings.pod_allowances)


def _hold(view: JobView, old: DreamBoothJobStatus, spec: DreamBoothJobSpec, problem: Problem) -> Decision:
    """Something is not there yet: say so at once, and give up after the start deadline."""
    new = job_status.troubled(view, old, problem)
    if clock.age(new.start_time, view.now) > spec.start_deadline_seconds:
        late = f"{problem.message} (given up after startDeadlineSeconds={spec.start_deadline_seconds})"
        return _end(view, old, Problem(problem.reason, late))
    return replace(_write(view, old, new), again=RETRY)


def _publish(
    view: JobView,
    old: DreamBoothJobStatus,
    spec: DreamBoothJobSpec,
    result: TrainResult | None,
    settings: Settings,
) -> Decision:
    """The training is over: record it, roll the model out, and only when the model is there, be done."""
    new = job_status.trained(view, old, result, settings) if result else old
    if new.artifact is None:
        below = (result and result.below_gate) or "the training published no artifact"
        return _end(view, new, Problem(Reason.BELOW_GATE, below), before=old)
    if problem := _conflict(view, spec):
        return _end(view, new, problem, before=old)
    model = manifests_job.personalized_model(view.body, spec, new.artifact)
    if view.model and not view.model["metadata"].get("deletionTimestamp") and drift.covers(view.model, model):
        return _write(view, old, job_status.succeeded(view, new), again=LINGER)
    return replace(_write(view, old, job_status.publishing(view, new)), apply=(model,), again=RETRY)


def _conflict(view: JobView, spec: DreamBoothJobSpec) -> Problem | None:
    """A model of the name that no job made is not ours to overwrite; one that a job made is a new version's to take."""
    found = view.model
    if found is None or found["metadata"].get("labels", {}).get(names.LABEL_MANAGED_BY) == names.MANAGER:
        return None
    return Problem(
        Reason.NAME_CONFLICT,
        f"the PersonalizedModel {spec.publish.name} exists and no DreamBoothJob made it: delete it, publish under "
        f"another name, or label it {names.LABEL_MANAGED_BY}={names.MANAGER} to have it replaced",
    )


def _end(
    view: JobView,
    old: DreamBoothJobStatus,
    problem: Problem,
    before: DreamBoothJobStatus | None = None,
) -> Decision:
    """The job has failed for good; what still runs is stopped, what it wrote in its logs is kept."""
    restarts = job_results.restarts(view, old)
    prior = old.prior or job_results.prior(view)
    known = old.model_copy(update={"restarts": restarts, "prior": prior})
    suspend, delete = _stop(view)
    decision = _write(view, before or old, job_status.failed(view, known, problem))
    return replace(decision, suspend=suspend, delete=delete)


def _after_the_end(view: JobView, old: DreamBoothJobStatus) -> Decision:
    """A finished job never runs again, whatever becomes of its children. They go after the TTL."""
    since = clock.age(old.completion_time, view.now)
    ttl = (view.body.get("spec") or {}).get("ttlSecondsAfterFinished")
    if isinstance(ttl, int) and since >= ttl:
        return Decision(delete=tuple(view.children))
    linger = LINGER if old.phase == Phase.SUCCEEDED else 0.0
    suspend, delete = _stop(view)
    over = since >= linger
    pending = [linger - since] if (suspend or delete) and not over else []
    pending += [ttl - since] if isinstance(ttl, int) and view.children else []
    stop = Decision(suspend=suspend, delete=delete) if over else NOTHING
    return replace(stop, again=max(0.5, min(pending)) if pending else None)


def _stop(view: JobView) -> tuple[tuple[tuple[str, bool], ...], tuple[ChildRef, ...]]:
    """Jobs to suspend, and Jobs to delete: Kueue resumes what it has admitted, so one of its queues goes altogether,
    and gives its place and its quota back."""
    going = [job for job in _jobs(view) if job and not causes.finished(job)]
    queued = [job for job in going if job_results.queue_of(job)]
    suspend = [job for job in going if job not in queued and not job_results.suspended(job)]
    delete = tuple(ChildRef("Job", job["metadata"]["name"]) for job in queued)
    return tuple((job["metadata"]["name"], True) for job in suspend), delete


def _jobs(view: JobView) -> tuple[Body | None, Body | None]:
    return view.child("Job", names.prepare_job(view.name)), view.child("Job", names.training(view.name))


def _write(view: JobView, old: DreamBoothJobStatus, new: DreamBoothJobStatus, again: float | None = None) -> Decision:
    return Decision(told=statuses.job_events(old, new), status=statuses.changed(new, view), again=again)
