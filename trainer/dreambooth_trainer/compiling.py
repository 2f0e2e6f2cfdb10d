"""`training.compile`: what the U-Net computes in a step, as programs of this machine, made once and kept."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dreambooth_api.compiling import CACHE, lacking
from dreambooth_trainer.config import Plan
from dreambooth_trainer.context import Context
from dreambooth_trainer.faults import SpecFault

if TYPE_CHECKING:
    from torch import nn


def check_compiles(plan: Plan) -> None:
    """Whether `training.compile`, if it is asked for, can be done here. Raises SpecFault."""
    training = plan.spec.training
    if not training.compile:
        return
    if training.aspect_ratio_buckets:
        raise SpecFault(
            "training.compile: each shape of a batch would be compiled anew, for minutes: set aspectRatioBuckets or "
            "compile to false"
        )
    if what := lacking(plan.device):
        raise SpecFault(
            f"training.compile: needs {what}, which this image lacks: add it (COMPILER when the image is built) or set "
            "compile to false"
        )


def compiled(unet: "nn.Module", ctx: Context) -> "Callable[..., Any]":
    """What calls `unet` as a program, which the first call makes, or finds where a process before left it.

    The module stays as it is: pictures are drawn in batches of other shapes, each of which would be compiled anew.
    """
    import torch
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    # By now torch has set the variable itself, to a folder that ends with the pod.
    if os.environ.get(CACHE) in (None, default_cache_dir()):
        os.environ[CACHE] = str(ctx.work.absolute() / "compiled")

    def ask(*args: Any, **options: Any) -> Any:
        return unet(*args, **options)

    # The shapes of a training never change; that they are never guessed keeps a resumed one to the very same program.
    return torch.compile(ask, dynamic=False)
