"""A canary's way, from its first share of the requests to all of them, or back. Pure.

All that it goes by is in the status: which artifact, which step, since when. An operator that begins anew goes on.
"""

import math
from dataclasses import dataclass

from dreambooth_api.model import Artifact, PersonalizedModelStatus, Revision, RolloutStatus
from dreambooth_api.reasons import Reason
from dreambooth_api.routes import Traffic
from dreambooth_api.serving import Rollout, RolloutStrategy
from dreambooth_operator import analysis, clock
from dreambooth_operator.views import ModelView, Problem

# How often a canary is looked at, seconds.
LOOK = 1.0


@dataclass(frozen=True)
class Plan:
    """What is to be at this moment."""

    state: RolloutStatus
    # What is to be said of it.
    word: Problem
    # The canary's share of the requests, percent.
    weight: int = 0
    # All of it is to go to the new artifact.
    promote: bool = False
    # What it is rolled back for, at the moment that it is.
    fault: analysis.Fault | None = None

    @property
    def failed(self) -> bool:
        """Whether it was rolled back."""
        return self.state.failure is not None


def current(status: PersonalizedModelStatus) -> Revision | None:
    """The artifact that has, or had before the canary, all of the requests."""
    return next((r for r in status.revisions if r.weight == 100 or (r.promoted and r.weight > 0)), None)


def tries(status: PersonalizedModelStatus, artifact: Artifact, rollout: Rollout, backend: str) -> bool:
    """Whether an artifact goes by way of a canary. One that once had all of the requests takes them back at once, and
    so does the first there is; `backend`: of what draws the model now, another kind of which is no canary's way."""
    now = current(status)
    if rollout.strategy != RolloutStrategy.CANARY or not rollout.steps or now is None or now.uri is None:
        return False
    promoted = any(r.digest == artifact.digest and (r.promoted or r.weight == 100) for r in status.revisions)
    return not promoted and now.backend == backend


def begun(view: ModelView, artifact: Artifact) -> RolloutStatus:
    """Where the canary of an artifact is: at its begin, if another one was tried, or if the spec has changed since it
    failed."""
    old = view.status.rollout
    if old and old.digest == artifact.digest and (old.failure is None or old.generation == view.generation):
        return old
    return RolloutStatus(digest=artifact.digest, generation=view.generation)


def finishing(status: PersonalizedModelStatus, artifact: Artifact) -> Plan | None:
    """The plan of a canary that is to take over at once: it keeps its share until the replicas of all are its own."""
    state, tried = status.rollout, next((r for r in status.revisions if r.digest == artifact.digest), None)
    if state is None or tried is None or state.digest != artifact.digest or state.failure or not 0 < tried.weight < 100:
        return None
    return Plan(state, Problem(Reason.ROLLING_OUT, "the canary is promoted"), tried.weight, promote=True)


def replicas(state: RolloutStatus, rollout: Rollout, stable: int) -> int:
    """How many replicas the step's share of `stable` ones takes; 1 at least."""
    steps = rollout.steps or [100]
    return max(1, math.ceil(stable * steps[min(state.step, len(steps) - 1)] / 100))


def plan(view: ModelView, state: RolloutStatus, rollout: Rollout, enough: bool, seen: Traffic) -> Plan:
    """The next thing. `enough`: the canary's replicas for this step are there; `seen`: since the step began."""
    steps, at = rollout.steps, state.step
    if state.failure is not None:
        return Plan(state, Problem(Reason.ANALYSIS_FAILED, state.failure))
    if at >= len(steps):
        word = f"the canary has passed its {len(steps)} steps and is promoted"
        return Plan(state, Problem(Reason.ROLLING_OUT, word), steps[-1], promote=True)
    before = steps[at - 1] if at else 0
    if state.since is None and (rollout.paused or not enough):
        return Plan(state, _waits(rollout, before), before)
    if state.since is None:
        state = state.model_copy(update={"since": clock.text(view.now)})
        return Plan(state, _watched(rollout, at), steps[at])
    over = clock.age(state.since, view.now) >= rollout.step_seconds
    if bad := analysis.failure(seen, rollout.analysis, over):
        text = f"rolled back at {steps[at]} %: {bad.text}; it is not tried again until spec changes"
        failed = state.model_copy(update={"failure": text, "generation": view.generation})
        return Plan(failed, Problem(Reason.ANALYSIS_FAILED, text), fault=bad.fault)
    if rollout.paused:
        return Plan(state, _waits(rollout, steps[at]), steps[at])
    if over:
        state = state.model_copy(update={"step": at + 1, "since": None})
        return Plan(state, _watched(rollout, at), steps[at])
    return Plan(state, _watched(rollout, at), steps[at])


def _waits(rollout: Rollout, weight: int) -> Problem:
    if rollout.paused:
        return Problem(Reason.PAUSED, f"the canary stays at {weight} %: spec.rollout.paused is true")
    return Problem(Reason.ROLLING_OUT, f"the canary stays at {weight} % until its next replicas are ready")


def _watched(rollout: Rollout, step: int) -> Problem:
    text = f"the canary has {rollout.steps[step]} % of the requests (step {step + 1} of {len(rollout.steps)})"
    return Problem(Reason.ROLLING_OUT, text)
