"""Scores checkpoints while training goes on, on rank 0: into MLflow, the status and the store."""

from __future__ import annotations

from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING

from PIL import Image

from dreambooth_api.job import CheckpointStatus
from dreambooth_trainer import scoring
from dreambooth_trainer.checkpoint import Checkpoints
from dreambooth_trainer.display import displayed
from dreambooth_trainer.distributed import StopSignal
from dreambooth_trainer.evaluations import Evaluations, best, stops
from dreambooth_trainer.family import Family
from dreambooth_trainer.manifests import CorruptFolder
from dreambooth_trainer.pictures import sheet
from dreambooth_trainer.prepare import Inputs, Prepared
from dreambooth_trainer.session import Session, load_weights

if TYPE_CHECKING:
    from dreambooth_trainer.loop import Desk
    from dreambooth_trainer.writer import Writer


class Verdict(Enum):
    """What follows from a scored checkpoint, alike on every rank."""

    GO_ON = "go on"
    ENDS = "no better score for long"
    LEAVE = "asked to end"


class Evaluator:
    """The scores of one training's checkpoints, and what follows from them."""

    def __init__(self, session: Session, got: Inputs, prepared: Prepared, desk: Desk, log: Evaluations) -> None:
        self.session, self.got, self.prepared, self.desk, self.log = session, got, prepared, desk, log
        self.checkpoints = Checkpoints(session.ctx, desk.console.say)

    @cached_property
    def _encoders(self) -> tuple[scoring.Clip | None, scoring.Dino | None]:
        return scoring.encoders(self.got.encoders)

    def due(self, step: int) -> bool:
        """Whether the checkpoint of `step` is to be scored while training goes on; alike on every rank."""
        spec = self.session.plan.spec
        every = spec.checkpoints.every_steps * spec.scoring.every_checkpoints
        return bool(self.got.encoders) and every > 0 and 0 < step < self.session.plan.steps and step % every == 0

    def judge(self, writer: Writer | None, stop: StopSignal) -> Verdict:
        """Score the state of now, which has a checkpoint; whether training goes on. Called by every rank.

        On a SIGTERM to any rank scoring is left at once: it may take longer than there is time. The restart scores
        first.
        """
        if writer is not None:
            writer.settle()
        self.session.collect()
        return stop.led(self._scored, Verdict.LEAVE)

    def _scored(self) -> Verdict:
        self.evaluate()
        step, patience = self.session.step, self.session.plan.spec.scoring.patience
        if not stops(self.log.scores, step, patience):
            return Verdict.GO_ON
        self.log.stop(step)
        self.desk.console.say(f"ended at step {step}: no better score in {patience} checkpoints")
        return Verdict.ENDS

    def best(self) -> int | None:
        """The step of the best scored checkpoint so far, by the job's rule."""
        publish = self.session.plan.spec.publish
        return best(self.log.scores, publish.gate, publish.checkpoint)

    def evaluate(self) -> None:
        """Score the state of now, unless a run before this one did."""
        step = self.session.step
        if step not in self.log.scores:
            with displayed(self.session) as model:
                measures = self._measure(model.family)
            if measures:
                self.log.add(step, measures)
                self.desk.tracker.metrics(step, {f"score_{name}": value for name, value in measures.items()})
                shown = "  ".join(f"{name} {value:.3f}" for name, value in measures.items())
                self.desk.console.say(f"scores at step {step}: {shown}")
        self._show()

    def take_best(self) -> int:
        """Put the best checkpoint's weights in place; its step. One that is gone or spoilt is passed over."""
        session, publish = self.session, self.session.plan.spec.publish
        committed = {*self.checkpoints.committed(), session.step}
        scores = {step: measures for step, measures in self.log.scores.items() if step in committed}
        while (step := best(scores, publish.gate, publish.checkpoint)) not in (None, session.step):
            assert step is not None
            try:
                state = self.checkpoints.load(step)
            except CorruptFolder as e:
                self.desk.console.say(f"the best checkpoint, of step {step}, is passed over: {e}")
                del scores[step]
                continue
            if session.sharded:
                session.whole = state.ema or state.weights
            else:
                load_weights(session, state)
            self.desk.console.say(f"the checkpoint of step {step} is the best of {len(scores)} scored ones")
            return step
        return session.step

    def status(self, step: int) -> CheckpointStatus:
        """The checkpoint of `step` as status shows it."""
        newest = self.desk.board.report.checkpoint
        if newest and newest.step == step:
            return newest
        return CheckpointStatus(step=step, uri=self.checkpoints.at(step).uri)

    def _show(self) -> None:
        step = self.best()
        if step is not None:
            scores = scoring.as_scores(self.log.scores[step], self.prepared.base_scores)
            self.desk.board.set(scores=scores, best_checkpoint=self.status(step))

    def _measure(self, family: Family) -> scoring.Measures:
        drawn = scoring.draw(family, self.session.plan)
        track_pictures(self.session, self.desk, drawn.subject)
        family.park_vae()
        held_out = [picture.image for picture in self.got.pictures.held_out]
        return scoring.measure(drawn, held_out, *self._encoders)


def track_pictures(session: Session, desk: Desk, images: list[Image.Image]) -> None:
    """A sheet of what was drawn at this step, into MLflow."""
    picture = sheet(images, session.plan.spec.validation.images)
    desk.tracker.image(picture, f"validation/step-{session.step:06d}.png")
