"""The status of a job in each of its situations. Pure."""

from dreambooth_api.job import DreamBoothJobStatus, Progress, RunStatus
from dreambooth_api.reasons import ConditionType, Phase, Reason
from dreambooth_api.result import TrainResult
from dreambooth_operator import clock, job_results
from dreambooth_operator.settings import Settings
from dreambooth_operator.status import with_condition
from dreambooth_operator.views import Body, JobView, Problem


def running(
    view: JobView, old: DreamBoothJobStatus, phase: Phase, pods: tuple[Body, ...], settings: Settings
) -> DreamBoothJobStatus:
    """Under way, with what was heard of it, and with what is in its way."""
    report = view.report
    # Preparing counts class images: its progress means nothing to the phase after it.
    kept = None if (old.phase, phase) == (Phase.PREPARING, Phase.TRAINING) else old.progress
    new = old.model_copy(
        update={
            "progress": _progress(view, old) if report and report.phase == phase else kept,
            "run": run(report.run if report else None, settings) or old.run,
            "checkpoint": (report.checkpoint if report else None) or old.checkpoint,
            "best_checkpoint": (report.best_checkpoint if report else None) or old.best_checkpoint,
            "scores": (report.scores if report else None) or old.scores,
            "prior": old.prior or job_results.prior(view),
            "restarts": job_results.restarts(view, old),
        }
    )
    looks = (job_results.obstacle, job_results.silent_node, job_results.silence)
    problem = next(filter(None, (look(view, pods) for look in looks)), None)
    if problem is None and report and report.warning:
        problem = Problem(report.warning_reason, report.warning)
    return _summary(view, new, phase, problem)


def troubled(view: JobView, old: DreamBoothJobStatus, problem: Problem) -> DreamBoothJobStatus:
    """Not started, or not going on, for a reason that may pass."""
    return _summary(view, old, old.phase if old.phase and old.phase != Phase.SUSPENDED else Phase.PENDING, problem)


def suspended(view: JobView, old: DreamBoothJobStatus) -> DreamBoothJobStatus:
    """Without pods because the user wants it so."""
    # Without a start time the job has not begun, and everything of it may be edited.
    begun = old.start_time if old.phase != Phase.PENDING else None
    new = old.model_copy(update={"prior": old.prior or job_results.prior(view)})
    message = "spec.suspend is true"
    new = _begin(view, new, Phase.SUSPENDED).model_copy(update={"start_time": begun})
    new = with_condition(new, view, ConditionType.COMPLETE, False, Reason.SUSPENDED, message)
    return with_condition(new, view, ConditionType.FAILED, False, Reason.SUSPENDED, message)


def queued(view: JobView, old: DreamBoothJobStatus, why: Problem, fresh: bool) -> DreamBoothJobStatus:
    """Without pods because a queue, or whoever else suspends Jobs, wants it so. `fresh`: nothing was trained yet."""
    update = {"prior": old.prior or job_results.prior(view), "progress": None if fresh else old.progress}
    new = _begin(view, old.model_copy(update=update), Phase.SUSPENDED)
    new = with_condition(new, view, ConditionType.COMPLETE, False, *why)
    return with_condition(new, view, ConditionType.FAILED, False, *why)


def trained(view: JobView, old: DreamBoothJobStatus, result: TrainResult, settings: Settings) -> DreamBoothJobStatus:
    """What rank 0 said at its end."""
    heard = result.progress.model_copy(update={"time": result.progress.time or clock.text(view.now)})
    return old.model_copy(
        update={
            "progress": old.progress if old.progress and _same(old.progress, heard) else heard,
            "run": run(result.run, settings) or old.run,
            "checkpoint": result.checkpoint or old.checkpoint,
            "best_checkpoint": result.best_checkpoint or old.best_checkpoint,
            "prior": old.prior or job_results.prior(view),
            "scores": result.scores if result.scores.to_dict() else old.scores,
            "artifact": result.artifact,
            "restarts": job_results.restarts(view, old),
        }
    )


def publishing(view: JobView, old: DreamBoothJobStatus) -> DreamBoothJobStatus:
    """The artifact is in the store, the model not yet in the cluster."""
    return _summary(view, old, Phase.PUBLISHING, None)


def succeeded(view: JobView, old: DreamBoothJobStatus) -> DreamBoothJobStatus:
    """Done."""
    new = _begin(view, old, Phase.SUCCEEDED)
    new = new.model_copy(update={"completion_time": new.completion_time or clock.text(view.now)})
    message = f"published {new.artifact.uri}" if new.artifact else "published"
    new = with_condition(new, view, ConditionType.COMPLETE, True, Reason.COMPLETED, message)
    return with_condition(new, view, ConditionType.FAILED, False, Reason.COMPLETED, "")


def failed(view: JobView, old: DreamBoothJobStatus, problem: Problem) -> DreamBoothJobStatus:
    """Over, without a model."""
    new = _begin(view, old, Phase.FAILED)
    new = new.model_copy(update={"completion_time": new.completion_time or clock.text(view.now)})
    new = with_condition(new, view, ConditionType.COMPLETE, False, problem.reason, problem.message)
    return with_condition(new, view, ConditionType.FAILED, True, problem.reason, problem.message)


def run(heard: RunStatus | None, settings: Settings) -> RunStatus | None:
    """The MLflow run, with the link that people can open."""
    if heard is None or not heard.id or not settings.mlflow_url:
        return heard
    return heard.model_copy(update={"url": f"{settings.mlflow_url}/#/runs/{heard.id}"})


def _summary(view: JobView, old: DreamBoothJobStatus, phase: Phase, problem: Problem | None) -> DreamBoothJobStatus:
    new = _begin(view, old, phase)
    new = with_condition(new, view, ConditionType.COMPLETE, False, Reason.RUNNING, phase.value)
    reason, message = problem or (Reason.RUNNING, "")
    return with_condition(new, view, ConditionType.FAILED, False, reason, message)


def _begin(view: JobView, old: DreamBoothJobStatus, phase: Phase) -> DreamBoothJobStatus:
    # As with a Kubernetes Job: a suspension stops the clock, which begins anew after it.
    resumed = old.phase == Phase.SUSPENDED and phase != Phase.SUSPENDED
    return old.model_copy(
        update={
            "observed_generation": view.generation,
            "phase": phase,
            "start_time": (None if resumed else old.start_time) or clock.text(view.now),
        }
    )


def _progress(view: JobView, old: DreamBoothJobStatus) -> Progress | None:
    """What was heard; the old, if only the time differs: a status that says nothing new is not written."""
    assert view.report is not None
    heard = view.report.progress
    if old.progress and _same(old.progress, heard):
        return old.progress
    return heard.model_copy(update={"time": heard.time or clock.text(view.now)})


def _same(one: Progress, other: Progress) -> bool:
    return one.model_copy(update={"time": None}) == other.model_copy(update={"time": None})
