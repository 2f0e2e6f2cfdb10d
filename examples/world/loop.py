"""The training loop that the four small trainings share: a wall-clock budget, EMA weights, resumption.

A run is measured in minutes, because on a laptop that is what one has; the learning rate follows the
share of them used. `state.pt` in the run's folder holds everything; started again with the same folder
a run goes on, and with more minutes it goes on longer.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Plan:
    """How long and how fast to learn."""

    folder: Path  # of state.pt
    minutes: float  # of computing, over all sessions
    learning_rate: float
    save_minutes: float = 10.0
    hold: float = 0.4  # share of the time at full rate, before the cosine down to `floor`
    floor: float = 0.03
    warmup_steps: int = 60
    ema_decay: float = 0.998
    weight_decay: float = 1e-3

    def rate(self, step: int, share: float) -> float:
        """Learning rate at a step, with this share (0 to 1) of the time used."""
        fall = min(1.0, max(0.0, share - self.hold) / (1 - self.hold))
        cosine = self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * fall))
        return self.learning_rate * min(1.0, (step + 1) / self.warmup_steps) * cosine


class Run:
    """A model in training: weights, their moving average, the optimizer, and the time spent so far."""

    def __init__(self, model: nn.Module, plan: Plan) -> None:
        self.model, self.plan = model, plan
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=plan.learning_rate, betas=(0.9, 0.99), weight_decay=plan.weight_decay, foreach=True
        )
        self.average = [p.detach().clone() for p in self.parameters]
        self.step, self.seconds = 0, 0.0
        self.path = plan.folder / "state.pt"
        if self.path.exists():
            self._load()

    def _load(self) -> None:
        state = torch.load(self.path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average, self.step, self.seconds = state["average"], state["step"], state["seconds"]

    def save(self) -> None:
        """Write the state, whole or not at all."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average,
            "step": self.step,
            "seconds": self.seconds,
        }
        part = self.path.with_suffix(".part")
        torch.save(state, part)
        os.replace(part, self.path)

    def update(self, loss: Tensor) -> float:
        """One optimizer step on a loss; the loss as a number."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.plan.rate(self.step, self.seconds / (60 * self.plan.minutes))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0, foreach=True)
        self.optimizer.step()
        self.step += 1
        decay = min(self.plan.ema_decay, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(self.average, [p.detach() for p in self.parameters], 1 - decay)
        return loss.item()

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange weights and averages; said twice it changes nothing."""
        for weight, mean in zip(self.parameters, self.average, strict=True):
            kept = weight.clone()
            weight.copy_(mean)
            mean.copy_(kept)


def train(model: nn.Module, plan: Plan, loss_of: Callable[[], Tensor], export: Callable[[], None]) -> None:
    """Minimise `loss_of()` until the time is up; `export()` is called with averaged weights in evaluation mode."""
    run = Run(model, plan)
    model.train()
    begun, saved, total, since = time.monotonic() - run.seconds, run.seconds, 0.0, run.step
    while run.seconds < 60 * plan.minutes:
        total += run.update(loss_of())
        run.seconds = time.monotonic() - begun
        if run.step % 100 == 0:
            print(f"step {run.step} {run.seconds:.0f} s loss {total / (run.step - since):.4f}", flush=True)
            total, since = 0.0, run.step
        if run.seconds - saved > 60 * plan.save_minutes:
            finish(run, export)
            saved = run.seconds
    finish(run, export)


def finish(run: Run, export: Callable[[], None]) -> None:
    """Save the state, then hand the averaged weights to `export`."""
    run.save()
    run.swap()
    run.model.eval()
    with torch.no_grad():
        export()
    run.model.train()
    run.swap()


def prepare_torch(seed: int, threads: int | None = None) -> None:
    """Settings every training here wants: a seed, no denormals (they are slow on CPUs), few threads."""
    torch.manual_seed(seed)
    torch.set_flush_denormal(True)
    if threads:
        torch.set_num_threads(threads)
