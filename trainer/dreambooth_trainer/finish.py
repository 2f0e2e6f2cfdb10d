"""What follows the last step on rank 0: draw, score, hold against the gate, publish, register."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dreambooth_api.job import Progress
from dreambooth_api.reasons import Phase
from dreambooth_api.result import TrainResult
from dreambooth_trainer import scoring
from dreambooth_trainer.display import displayed
from dreambooth_trainer.evaluator import Evaluator, track_pictures
from dreambooth_trainer.prepare import Prepared
from dreambooth_trainer.publish import Made, publish
from dreambooth_trainer.session import Session
from dreambooth_trainer.tracking import flat

if TYPE_CHECKING:
    from dreambooth_trainer.loop import Desk

# A training that resumes at its end may be done before MLflow has told the run: it is waited for so long, seconds.
RUN_WAIT = 15.0


def params_of(session: Session, prepared: Prepared) -> dict[str, str]:
    """Every setting and the digests of what went in, for MLflow."""
    plan, ctx = session.plan, session.ctx
    resolved = {
        "steps": plan.steps,
        "learning_rate": plan.learning_rate,
        "text_encoder_learning_rate": plan.text_encoder_learning_rate,
        "token_learning_rate": plan.token_learning_rate,
        "resolution": plan.resolution,
        "precision": "fp32" if plan.precision == "no" else plan.precision,
        "device": plan.device,
    }
    return {
        **flat("", ctx.spec.to_dict()),
        **flat("resolved", resolved),
        "digest.base": prepared.base_digest,
        "digest.dataset": prepared.dataset_digest,
        "image": ctx.image or "none",
    }


def validate(session: Session, desk: Desk) -> None:
    """Draw the validation prompts with the state of now, into MLflow."""
    validation = session.plan.spec.validation
    with displayed(session) as model:
        drawn = model.family.draw(
            [p for p in session.plan.validation_prompts for _ in range(validation.images)],
            [scoring.SEED + i for i in range(len(session.plan.validation_prompts) * validation.images)],
            steps=validation.steps,
            guidance=validation.guidance_scale,
            resolution=session.plan.resolution,
        )
        model.family.park_vae()
    track_pictures(session, desk, drawn)


def finish(session: Session, evaluator: Evaluator, desk: Desk) -> TrainResult:
    """Score what was trained; publish the best of it if the gate lets it."""
    plan, prepared = session.plan, evaluator.prepared
    last = desk.board.report.progress.model_dump() | {"step": session.step, "steps": plan.steps, "percent": 100}
    desk.board.set(phase=Phase.SCORING)
    evaluator.evaluate()
    step = evaluator.take_best()
    measures = evaluator.log.scores.get(step, {})
    scores = scoring.as_scores(measures, prepared.base_scores)
    below = scoring.below_gate(plan.spec.publish.gate, measures)
    artifact = None
    if below is None:
        desk.board.set(phase=Phase.PUBLISHING)
        made = Made(prepared.base_digest, scores, desk.tracker.run_id(RUN_WAIT), step)
        with displayed(session) as model:
            artifact = publish(session.ctx, plan, model.family, model, made)
        desk.tracker.register(f"{session.ctx.namespace}.{plan.spec.publish.name}", artifact)
        desk.console.say(f"published {artifact.uri} ({artifact.bytes / 2**20:.1f} MiB)")
    else:
        desk.console.say(f"not published: below the gate: {below}")
    report = desk.board.report
    return TrainResult(
        progress=Progress(**last),
        scores=scores,
        artifact=artifact,
        below_gate=below,
        run=report.run,
        checkpoint=report.checkpoint,
        best_checkpoint=evaluator.status(step) if measures else None,
    )
