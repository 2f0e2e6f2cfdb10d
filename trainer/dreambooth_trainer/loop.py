"""The story of a training, to be read from top to bottom.

Pods run it as `python -m dreambooth_trainer train --job PATH` under `launch`; `dreambooth run` calls it in-process.
"""

import contextlib
import os
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from dreambooth_api.reasons import Phase
from dreambooth_api.result import TrainResult
from dreambooth_trainer import finish, optim, threads
from dreambooth_trainer.checkpoint import Checkpoints
from dreambooth_trainer.config import Plan
from dreambooth_trainer.context import Context
from dreambooth_trainer.dataset import Batch
from dreambooth_trainer.distributed import StopSignal, World, join
from dreambooth_trainer.evaluations import Evaluations
from dreambooth_trainer.evaluator import Evaluator, Verdict
from dreambooth_trainer.faults import CheckpointsCorrupt, SavedOnSigterm
from dreambooth_trainer.loss import Loss, dreambooth_loss, min_snr_weights, sample_errors
from dreambooth_trainer.prepare import Inputs, checkpoint_scoring_key, read_prepared
from dreambooth_trainer.progress import Board, Console
from dreambooth_trainer.report import Clock, Trace, report
from dreambooth_trainer.session import Session, begin, check_unchanged
from dreambooth_trainer.stream import seed_of
from dreambooth_trainer.tracking import Tracker
from dreambooth_trainer.writer import Writer


@dataclass
class Desk:
    """Where rank 0 reports to; the other ranks' desks are silent."""

    board: Board
    console: Console
    tracker: Tracker


def train(ctx: Context, desk: Desk, got: Inputs | None = None) -> TrainResult | None:
    """Train, score, publish. The result is rank 0's; the other ranks have None. Raises TrainerFault.

    `got` is what this process already loaded to prepare.
    """
    got = got or Inputs(ctx)
    prepared = read_prepared(ctx)
    check_unchanged(prepared, got)
    world = World()
    log = Evaluations(ctx.job_store, checkpoint_scoring_key(got, prepared))
    ended = trained_step(ctx, got.plan, log)
    if ended is not None:
        # A pod that is started again after the last step: the other ranks have ended well and will not come back.
        if int(os.environ.get("RANK", "0")) > 0:
            return None
    else:
        world = join(got.plan.device)
    stop = StopSignal(world)
    stop.listen()
    try:
        session = begin(ctx, got, prepared, world, desk.console, ended)
        check_complete(session, ended)
        desk.tracker.params(finish.params_of(session, prepared))
        for step, values, stamp in session.unsent:
            desk.tracker.metrics(step, values, stamp)
        if session.resumed:
            desk.board.resumed()
        evaluator = Evaluator(session, got, prepared, desk, log)
        run_loop(session, desk, stop, evaluator)
        if not world.leads:
            return None
        with stop.at_once():
            return finish.finish(session, evaluator, desk)
    finally:
        stop.release()
        world.close()


def trained_step(ctx: Context, plan: Plan, log: Evaluations) -> int | None:
    """The last step, or that of an early end, if its state is in the store: scoring and publishing are left."""
    committed = Checkpoints(ctx).committed()
    return next((step for step in (plan.steps, log.stopped_at) if step in committed), None)


def check_complete(session: Session, ended: int | None) -> None:
    """Whether the state of the last step could be read where many ranks made it. Raises CheckpointsCorrupt.

    A rank that trains its rest alone would train on other batches than the job asks for.
    """
    if ended not in (None, session.step) and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        assert ended is not None
        raise CheckpointsCorrupt(
            f"the checkpoint of step {ended}, the last, is spoilt, and the other ranks have ended: remove "
            f"{Checkpoints(session.ctx).at(ended).uri} and start all ranks again, or make a new job"
        )


def run_loop(session: Session, desk: Desk, stop: StopSignal, evaluator: Evaluator) -> None:
    """From the session's step to the last one; the last state is committed when it returns."""
    plan = session.plan
    desk.board.set(phase=Phase.TRAINING)
    desk.console.say(
        f"training: {plan.spec.method.type.value}, step {session.step} of {plan.steps}, "
        f"{session.world.size} rank(s) × batch {plan.batch}, {plan.precision if plan.precision != 'no' else 'fp32'}"
    )
    stop.immediate = False
    with (
        threads.for_training(session.trainee, plan.device),
        _writer(session, desk, evaluator) or contextlib.nullcontext() as writer,
    ):
        _steps(session, desk, stop, evaluator, writer)
    session.collect()
    # Pods that end well do not come back: none ends before the last state is in the store.
    stop.led(lambda: None, None)
    if session.world.size > 1 and not session.sharded:
        # Every rank says it: ranks whose gradients were not averaged end with other weights, and a log shows it.
        print(f"rank {session.world.rank}: final weights {session.trainee.digest()}", flush=True)


def _steps(session: Session, desk: Desk, stop: StopSignal, evaluator: Evaluator, writer: Writer | None) -> None:
    plan, every = session.plan, session.plan.spec.checkpoints.every_steps
    clock, traces = Clock(), list[Trace]()
    while session.step < plan.steps:
        if evaluator.due(session.step):
            verdict = evaluator.judge(writer, stop)
            if verdict is Verdict.LEAVE:
                _leave(session, desk, writer)
            if verdict is Verdict.ENDS:
                return
            clock.since = time.monotonic()
        traces += take_step(session)
        done, last = session.step, session.step == plan.steps
        stopping = stop.agreed()
        saving = stopping or last or done % every == 0
        if saving or done % plan.log_every == 0:
            report(session, desk, traces, clock)
            traces = []
        if saving:
            _save(session, desk, writer)
        if stopping and not last:
            _leave(session, desk, writer)
        if _validation_due(plan, done) and not evaluator.due(done):
            if writer is not None:
                writer.settle()
            session.collect()
            stop.led(lambda: finish.validate(session, desk), None)
            clock.since = time.monotonic()


def take_step(session: Session) -> list[Trace]:
    """One optimizer step: accumulate gradients over micro-steps, average them over ranks, clip, update."""
    plan, accelerator, training = session.plan, session.accelerator, session.plan.spec.training
    # What a model may draw by itself (dropout) follows from the step too, so that a resumed run draws the same.
    torch.manual_seed(seed_of("step", training.seed, session.step, session.world.rank))
    factor = optim.rate_factor(training.lr_scheduler, session.step, plan.steps, training.warmup_steps)
    optim.set_rates(session.optimizer, factor)
    traces = []
    for micro in range(training.gradient_accumulation):
        began = time.monotonic()
        batch = session.data.batch(session.samples, micro, session.world.rank, session.world.size)
        session.waited += time.monotonic() - began
        noisy = [session.family.add_noise(g.latents, g.noise, g.timesteps) for g in batch.groups]
        with accelerator.accumulate(session.model):
            predictions = session.model(noisy, batch.groups, session.text)
            loss = _loss(session, batch, predictions)
            accelerator.backward(loss.total)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(session.trained.values(), training.max_grad_norm)
            session.optimizer.step()
            session.optimizer.zero_grad(set_to_none=True)
        traces.append(Trace(session.step, loss.per_sample, batch.names))
    session.samples += session.per_step
    session.step += 1
    if session.ema:
        session.ema.update(session.trained, session.step)
    return traces


def _loss(session: Session, batch: Batch, predictions: list[Tensor]) -> Loss:
    family, gamma = session.family, session.plan.spec.training.snr_gamma
    errors, weights = [], []
    for group, prediction in zip(batch.groups, predictions, strict=True):
        target = family.target(group.latents, group.noise, group.timesteps)
        errors.append(sample_errors(prediction, target, group.masks))
        if gamma is not None:
            alphas = family.schedule.alphas_cumprod
            weights.append(min_snr_weights(alphas, group.timesteps, gamma, family.prediction_type))
    return dreambooth_loss(
        batch.in_order(errors),
        subjects=batch.subjects,
        prior_weight=session.plan.spec.prior.weight,
        weights=batch.in_order(weights) if weights else None,
    )


def _writer(session: Session, desk: Desk, evaluator: Evaluator) -> Writer | None:
    if not session.world.leads:
        return None
    checkpoints = Checkpoints(session.ctx, desk.console.say, evaluator.best)
    writer = Writer(checkpoints, session.plan.spec.checkpoints.keep, desk.board.committed, desk.board.stalled)
    # accelerate wraps the optimizer; the hook is called where the weights really change.
    getattr(session.optimizer, "optimizer", session.optimizer).register_step_pre_hook(lambda *_: writer.settle())
    return writer


def _save(session: Session, desk: Desk, writer: Writer | None) -> None:
    """Hand the state of now to rank 0's writer; sharded, every rank gives its part at once."""
    if session.sharded:
        whole = session.state(desk.tracker.unsent())
        if writer is not None:
            writer.save(lambda: whole)
    elif writer is not None:
        writer.save(lambda: session.state(desk.tracker.unsent()))


def _leave(session: Session, desk: Desk, writer: Writer | None) -> None:
    """End on SIGTERM, all ranks at the same step, once the state is in the store."""
    if writer is not None:
        writer.close()
    desk.console.say(f"asked to end: step {session.step} is saved")
    raise SavedOnSigterm(f"asked to end; step {session.step} of {session.plan.steps} is saved")


def _validation_due(plan: Plan, step: int) -> bool:
    every = plan.spec.validation.every_steps
    return every is not None and step % every == 0 and step < plan.steps
