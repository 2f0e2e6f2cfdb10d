"""Optimizers by name, and the learning rate as a pure function of the step."""

import math

import torch

from dreambooth_api.job import Optimizer
from dreambooth_trainer.config import Plan
from dreambooth_trainer.faults import SpecFault
from dreambooth_trainer.token import ROW
from dreambooth_trainer.trainee import Trainee


def rate_factor(kind: str, step: int, steps: int, warmup: int) -> float:
    """What the learning rate is multiplied by in step `step` (from 0) of `steps`."""
    if kind != "constant" and step < warmup:
        return (step + 1) / warmup
    share = (step - warmup) / max(1, steps - warmup)
    if kind == "linear":
        return max(0.0, 1 - share)
    if kind == "cosine":
        return 0.5 * (1 + math.cos(math.pi * min(1.0, share)))
    if step < warmup:
        return (step + 1) / warmup
    return 1.0


def build_optimizer(trainee: Trainee, plan: Plan) -> torch.optim.Optimizer:
    """The optimizer: U-Net, text encoders and learned token in groups of their own.

    Raises SpecFault when it is not installed or needs another machine.
    """
    parts: dict[str, list[torch.nn.Parameter]] = {"unet": [], "text": [], "token": []}
    for name, parameter in sorted(trainee.trainable().items()):
        kind = "token" if name.endswith(f".{ROW}") else "unet" if name.startswith("unet.") else "text"
        parts[kind].append(parameter)
    rates = {
        "unet": plan.learning_rate, "text": plan.text_encoder_learning_rate, "token": plan.token_learning_rate
    }  # fmt: skip
    # `base` is what a schedule multiplies.
    groups = [{"params": parts[kind], "lr": rate, "base": rate} for kind, rate in rates.items() if parts[kind]]
    decay = plan.spec.training.weight_decay
    match plan.spec.training.optimizer:
        case Optimizer.ADAMW:
            return torch.optim.AdamW(groups, weight_decay=decay, fused=True)
        case Optimizer.ADAMW_8BIT:
            return _imported("bitsandbytes", "bitsandbytes.optim", "AdamW8bit")(groups, weight_decay=decay)
        case Optimizer.PRODIGY:
            # The safeguard suits a warm-up, where the estimate of the distance would run away.
            return _imported("prodigyopt", "prodigyopt", "Prodigy")(
                groups, weight_decay=decay, use_bias_correction=True, safeguard_warmup=True
            )
        case Optimizer.ADAFACTOR:
            from transformers.optimization import Adafactor

            return Adafactor(groups, weight_decay=decay, relative_step=False, scale_parameter=False, warmup_init=False)
    raise SpecFault(f"training.optimizer: {plan.spec.training.optimizer} is unknown")


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set each group's learning rate to its base times `factor`."""
    for group in optimizer.param_groups:
        group["lr"] = group["base"] * factor


def _imported(package: str, module: str, name: str):
    import importlib

    try:
        return getattr(importlib.import_module(module), name)
    except ImportError as e:
        raise SpecFault(
            f"training.optimizer: {name} needs the package {package}, which this image lacks: "
            "add it to the image or choose AdamW or Adafactor"
        ) from e
