"""Statuses and the events that their changes tell. Pure."""

from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import to_json

from dreambooth_api.base import ApiModel
from dreambooth_api.conditions import Condition, set_condition
from dreambooth_api.job import DreamBoothJobStatus
from dreambooth_api.model import PersonalizedModelStatus
from dreambooth_api.pool import ServingPoolStatus
from dreambooth_api.reasons import ConditionType, Phase, Reason
from dreambooth_operator import clock
from dreambooth_operator.views import Body, Decision, EventType, Told, View

S = TypeVar("S", DreamBoothJobStatus, PersonalizedModelStatus, ServingPoolStatus)

# Reasons of a `Failed=False` or `Ready=False` that are no trouble.
CALM = frozenset(
    {
        Reason.RUNNING,
        Reason.SUSPENDED,
        Reason.QUEUED,
        Reason.COMPLETED,
        Reason.AVAILABLE,
        Reason.ROLLING_OUT,
        Reason.PAUSED,
        Reason.SCALED_TO_ZERO,
    }
)
MAX_MESSAGE = 1000


def read(model: type[S], body: Body) -> S:
    """A resource's status; fields that another release wrote and this one does not understand are dropped."""
    raw: dict[str, Any] = dict(body.get("status") or {})
    while True:
        try:
            return model.model_validate_json(to_json(raw))
        except ValidationError as e:
            bad = {error["loc"][0] for error in e.errors() if error["loc"]} & raw.keys()
            if not bad:
                return model()
            raw = {key: value for key, value in raw.items() if key not in bad}


def with_condition(status: S, view: View, kind: ConditionType, value: bool, reason: str, message: str) -> S:
    """`status` with one condition set; its transition time is the view's moment, if it changed."""
    condition = Condition(
        type=kind,
        status="True" if value else "False",
        observed_generation=view.generation,
        last_transition_time=clock.text(view.now),
        reason=reason,
        message=message[:MAX_MESSAGE],
    )
    return status.model_copy(update={"conditions": set_condition(status.conditions, condition)})


def condition_of(status: S, kind: ConditionType) -> Condition | None:
    """A condition by its type."""
    return next((c for c in status.conditions if c.type == kind), None)


def changed(new: ApiModel, view: View) -> Body | None:
    """The status to write; None when the resource has it already."""
    wanted = new.to_dict()
    return None if wanted == (view.body.get("status") or {}) else wanted


def decision(view: View, old: S, new: S, **what: Any) -> Decision:
    """What to write for a model or a pool: what has changed of its status, what that tells, and `what` else."""
    return Decision(told=serving_events(old, new), status=changed(new, view), **what)


def job_events(old: DreamBoothJobStatus, new: DreamBoothJobStatus) -> tuple[Told, ...]:
    """What happened to a job between two statuses, in order. Reason and phase make an event, not every new message."""
    told = []
    if new.phase and new.phase != old.phase and new.phase != Phase.FAILED:
        told.append(_told("Normal", *_phase_words(new), new, 0))
    failed, before = condition_of(new, ConditionType.FAILED), condition_of(old, ConditionType.FAILED)
    is_new = failed and (before is None or (before.status, before.reason) != (failed.status, failed.reason))
    if failed and is_new and failed.reason not in CALM:
        told.append(_told("Warning", failed.reason, failed.message, new, 1))
    if new.restarts > old.restarts:
        told.append(_told("Warning", "Restarted", f"training pods replaced so far: {new.restarts}", new, 2))
    return tuple(told)


def serving_events(old: S, new: S) -> tuple[Told, ...]:
    """What happened to a model or a pool between two statuses."""
    told = []
    for place, kind in enumerate((ConditionType.PROGRESSING, ConditionType.READY)):
        now, before = condition_of(new, kind), condition_of(old, kind)
        if now is None or (before and (before.status, before.reason) == (now.status, now.reason)):
            continue
        bad = now.status == "False" and now.reason not in CALM
        if kind == ConditionType.PROGRESSING and now.status == "False" and not bad:
            continue  # `Ready` tells the good end.
        occasion = f"{kind}/{now.status}/{now.last_transition_time}"
        told.append(Told("Warning" if bad else "Normal", now.reason, now.message, occasion, place))
    return tuple({(t.reason, t.message): t for t in told}.values())


def _told(kind: EventType, reason: str, message: str, status: DreamBoothJobStatus, nth: int) -> Told:
    """An event of a job, the `nth` of three that one change of its status may tell."""
    occasion = f"{status.phase}/{status.restarts}/{status.observed_generation}"
    # Phases are declared in the order in which a job reaches them.
    place = 3 * list(Phase).index(status.phase) + nth if status.phase else nth
    return Told(kind, reason, message, occasion, place)


def _phase_words(status: DreamBoothJobStatus) -> tuple[str, str]:
    """Reason and message of the event of a phase that was reached."""
    assert status.phase is not None
    why = condition_of(status, ConditionType.COMPLETE)
    if status.phase == Phase.SUSPENDED and why and why.reason == Reason.QUEUED:
        return why.reason, why.message
    return status.phase.value, _phase_message(status)


def _phase_message(status: DreamBoothJobStatus) -> str:
    prior, progress = status.prior, status.progress
    match status.phase:
        case Phase.PREPARING:
            return "checking the input and drawing class images"
        case Phase.TRAINING:
            images = f"; {prior.images} class images ({prior.reused} reused)" if prior else ""
            return f"the input is good{images}"
        case Phase.SCORING:
            return f"trained {progress.step} steps; measuring fidelity" if progress else "measuring fidelity"
        case Phase.PUBLISHING:
            return "publishing the result"
        case Phase.SUCCEEDED:
            return f"published {status.artifact.uri}" if status.artifact else "published"
        case Phase.SUSPENDED:
            return "suspended: no pods; goes on from its checkpoint when spec.suspend is false"
        case _:
            return "waiting to start"
