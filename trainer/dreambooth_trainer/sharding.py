"""What is trained, divided among the ranks (FSDP): each holds its part of weights, gradients and optimizer state.

Source: Zhao et al., PyTorch FSDP, arXiv 2304.11277, as torch's `fully_shard`. accelerate has it for GPUs alone; this is
one way for gloo on CPUs and NCCL on GPUs. Checkpoints hold whole tensors, as those of replicated ranks do: a training
goes on with another number of ranks, sharded or not.
"""

from typing import Any

import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from dreambooth_api.job import Sharding
from dreambooth_trainer.config import Plan
from dreambooth_trainer.distributed import World
from dreambooth_trainer.trainee import Trainee


def is_sharded(plan: Plan, world: World) -> bool:
    """Whether the ranks divide what is trained; one rank alone has nothing to divide."""
    return plan.spec.topology.sharding == Sharding.FULLY_SHARDED and world.size > 1


def shard(trainee: Trainee, plan: Plan, world: World) -> None:
    """Leave this rank its part of `trainee`, in place. Its parameters are others then: make the optimizer afterwards.

    The units, which are whole only while they compute, are what diffusers and transformers name as not to be split.
    """
    mesh = init_device_mesh(plan.device, (world.size,))
    half = torch.bfloat16 if plan.precision == "bf16" else None
    # Inputs are autocast's to cast: sizes of pictures would lose digits in bf16.
    policy = MixedPrecisionPolicy(half, torch.float32 if half else None, cast_forward_inputs=False)
    for part in (trainee.unet, *trainee.encoders.values()):
        # Parts of a tensor are rows: channels must not come last.
        part.to(memory_format=torch.contiguous_format)
        kinds = set(getattr(part, "_no_split_modules", None) or ())
        # What is inside first, as `fully_shard` asks for.
        for module in reversed([m for m in part.modules() if type(m).__name__ in kinds]):
            fully_shard(module, mesh=mesh, mp_policy=policy)
    fully_shard(trainee, mesh=mesh, mp_policy=policy)


@torch.no_grad()
def gathered(value: Any, keep: bool) -> Any:
    """A state of dicts and lists with its tensors whole, copied to the CPU; without them where not `keep`.

    Called by all ranks, with states of the same shape.
    """
    if isinstance(value, DTensor):
        whole = value.full_tensor()
        return whole.cpu() if keep else None
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True) if keep else None
    if isinstance(value, dict):
        return {key: gathered(inner, keep) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(gathered(inner, keep) for inner in value)
    return value


@torch.no_grad()
def put(whole: Tensor, into: Tensor) -> None:
    """Copy `whole`, or this rank's part of it, into a parameter or an average."""
    if isinstance(into, DTensor):
        into.to_local().copy_(_part(whole, into).to_local())
    else:
        into.copy_(whole)


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load a state of whole tensors, of which this rank takes its part."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def divided(value: Any, parameter: Tensor) -> Any:
        suits = isinstance(parameter, DTensor) and isinstance(value, Tensor) and value.shape == parameter.shape
        return _part(value, parameter) if suits else value

    parts = {
        index: {key: divided(value, parameters[index]) for key, value in values.items()}
        for index, values in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": parts})


def _part(whole: Tensor, like: Any) -> Any:
    # Every rank has the whole and cuts its own part: nothing is sent.
    return distribute_tensor(whole, like.device_mesh, like.placements, src_data_rank=None)
