"""What is heard of the steps: the losses of all ranks are read, judged finite, and shown."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dreambooth_api.job import Progress
from dreambooth_trainer.device import usage
from dreambooth_trainer.faults import NonFiniteLoss
from dreambooth_trainer.figures import Figures, line
from dreambooth_trainer.session import Session

if TYPE_CHECKING:
    from dreambooth_trainer.loop import Desk


@dataclass
class Clock:
    """Pace: pictures and time since the last report, without what is not training."""

    since: float = field(default_factory=time.monotonic)
    steps: int = 0
    seconds_per_step: float = 0.0

    def lap(self, steps: int) -> None:
        """Take `steps` steps since the last lap into the running mean."""
        elapsed = (time.monotonic() - self.since) / max(1, steps)
        self.seconds_per_step = elapsed if not self.seconds_per_step else 0.8 * self.seconds_per_step + 0.2 * elapsed
        self.since = time.monotonic()


@dataclass(frozen=True)
class Trace:
    """What one micro-step left behind, still on the device: a loss per sample, and the samples' names."""

    step: int
    per_sample: Tensor
    names: list[str]


def report(session: Session, desk: Desk, traces: list[Trace], clock: Clock) -> None:
    """Read the losses since the last report, over all ranks, and show them. Raises NonFiniteLoss on every rank."""
    # The one place where the CPU waits for the device.
    losses = torch.stack([trace.per_sample.float() for trace in traces]).cpu()
    by_rank = torch.stack(session.world.gather(losses))
    _check_finite(session, traces, by_rank)
    if not session.world.leads:
        return
    plan, subjects = session.plan, session.plan.batch
    subject = float(by_rank[..., :subjects].mean())
    prior = float(by_rank[..., subjects:].mean()) if plan.with_prior else 0.0
    loss = subject + plan.spec.prior.weight * prior
    steps = len({trace.step for trace in traces})
    clock.lap(steps)
    pace = session.per_step * (2 if plan.with_prior else 1) / max(clock.seconds_per_step, 1e-9)
    rate = session.optimizer.param_groups[0]["lr"]
    eta = int((plan.steps - session.step) * clock.seconds_per_step)
    measured = {"loss": loss, "learning_rate": rate, "images_per_second": pace, "loss_subject": subject}
    if plan.with_prior:
        measured["loss_prior"] = prior
    figures = Figures(
        loss=loss,
        learning_rate=rate,
        images_per_second=pace,
        eta_seconds=eta,
        step_seconds=clock.seconds_per_step,
        data_wait_seconds=session.waited / max(1, steps),
        usage=usage(plan.device),
        checkpoint_age=desk.board.checkpoint_age,
        resumes=desk.board.resumes,
    )
    session.waited = 0.0
    if figures.usage.on_gpu:
        measured["gpu_memory_mib"] = figures.usage.memory_bytes / 2**20
    desk.tracker.metrics(session.step, measured)
    _show(session, desk, figures)


def _show(session: Session, desk: Desk, figures: Figures) -> None:
    """On the board, and as a line or a bar."""
    step, steps = session.step, session.plan.steps
    desk.board.measure(figures)
    desk.board.advance(
        Progress(
            step=step,
            steps=steps,
            percent=100 * step // steps,
            loss=f"{figures.loss:.4f}",
            images_per_second=f"{figures.images_per_second:.1f}",
            eta_seconds=figures.eta_seconds,
        )
    )
    desk.console.step("step", step, steps, line(figures))


def _check_finite(session: Session, traces: list[Trace], by_rank: Tensor) -> None:
    """Raise NonFiniteLoss with the first step and, where it was drawn here, the sample's name."""
    bad = (~torch.isfinite(by_rank)).nonzero()
    if not len(bad):
        return
    rank, row, column = min(bad.tolist(), key=lambda place: place[1])
    name = traces[row].names[column] if rank == session.world.rank else f"a sample of rank {rank}"
    rate = session.optimizer.param_groups[0]["lr"]
    raise NonFiniteLoss(
        f"the loss became {float(by_rank[rank, row, column])} at step {traces[row].step + 1}, learning rate "
        f"{rate:.1e}, on {name}: lower training.learningRate, or use bf16 or fp32; no checkpoint holds that state"
    )
