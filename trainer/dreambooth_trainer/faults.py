"""Every way a trainer process ends, and what the outside hears of it: exit code, reason, a sentence."""

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from dreambooth_api import names
from dreambooth_api.exits import ExitCode
from dreambooth_api.parse import InvalidResource
from dreambooth_api.reasons import Reason
from dreambooth_api.result import Fault, PrepareResult, TrainResult, dump_result
from dreambooth_trainer.patience import is_disk_full

MAKE_ROOM = (
    "make room on it, or give the pod more ephemeral storage (topology.template.resources); "
    "the checkpoints in the store are whole, and a restart goes on from the newest"
)


class TrainerFault(Exception):
    """An end whose cause is known. Subclasses fix code and reason; the message says what to do."""

    code: ExitCode
    reason: Reason

    def to_result(self) -> Fault:
        """The termination message."""
        return Fault(reason=self.reason, message=str(self)[:2000])


class SpecFault(TrainerFault):
    """The spec asks for what cannot be."""

    code, reason = ExitCode.SPEC, Reason.INVALID_SPEC


class DatasetNotFound(TrainerFault):
    """There are no pictures where the spec says."""

    code, reason = ExitCode.DATA, Reason.DATASET_NOT_FOUND


class DatasetInvalid(TrainerFault):
    """A picture cannot be used; the message has its name."""

    code, reason = ExitCode.DATA, Reason.DATASET_INVALID


class BaseModelNotFound(TrainerFault):
    """There is no base model where the spec says."""

    code, reason = ExitCode.BASE_MODEL, Reason.BASE_MODEL_NOT_FOUND


class BaseModelInvalid(TrainerFault):
    """The base lacks a part, holds pickles or is of a family that is not supported."""

    code, reason = ExitCode.BASE_MODEL, Reason.BASE_MODEL_INVALID


class NonFiniteLoss(TrainerFault):
    """The loss became NaN or infinite; no checkpoint holds that state."""

    code, reason = ExitCode.NON_FINITE, Reason.NON_FINITE_LOSS


class GpuOutOfMemory(TrainerFault):
    """The GPU's memory is too small for the settings."""

    code, reason = ExitCode.GPU_OUT_OF_MEMORY, Reason.GPU_OUT_OF_MEMORY


class CheckpointsCorrupt(TrainerFault):
    """There are checkpoints and none can be used: starting over silently would lose work."""

    code, reason = ExitCode.CHECKPOINTS_CORRUPT, Reason.CHECKPOINTS_CORRUPT


class StoreUnavailable(TrainerFault):
    """The store did not answer for as long as we were willing to wait."""

    code, reason = ExitCode.STORE_UNAVAILABLE, Reason.STORE_UNAVAILABLE


class StoreRefused(TrainerFault):
    """The store answered no: wrong keys or bucket, which no retry mends."""

    code, reason = ExitCode.SPEC, Reason.STORE_UNAVAILABLE


class PeerLost(TrainerFault):
    """Another rank is gone."""

    code, reason = ExitCode.PEER_LOST, Reason.NODE_LOST


class SavedOnSigterm(TrainerFault):
    """Asked to end; everything worth keeping is in the store."""

    code, reason = ExitCode.SAVED_ON_SIGTERM, Reason.PREEMPTED


_PEER_WORDS = ("connection closed by peer", "connection reset by peer", "gloo", "nccl", "socket", "broken pipe")


def as_fault(error: BaseException) -> TrainerFault | None:
    """The fault that `error` amounts to; None when its cause is not known."""
    if isinstance(error, TrainerFault):
        return error
    if isinstance(error, InvalidResource):
        return SpecFault(str(error))
    kind = type(error).__name__
    if kind == "OutOfMemoryError":
        return GpuOutOfMemory(
            "the GPU ran out of memory: lower training.batchSize (and raise gradientAccumulation), set "
            "training.gradientCheckpointing, precision bf16, method LoRA, or a smaller resolution"
        )
    if is_disk_full(error):
        return StoreUnavailable(f"the local disk is full: {str(error).splitlines()[0][:300]}: {MAKE_ROOM}")
    distributed = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if kind.startswith("Dist") or (
        distributed and isinstance(error, RuntimeError) and any(word in str(error).lower() for word in _PEER_WORDS)
    ):
        return PeerLost(f"another rank is gone: {str(error).splitlines()[0][:300]}")
    return None


def write_termination_message(text: str) -> None:
    """Leave `text` where Kubernetes looks for it; on a machine without such a place, nowhere."""
    path = Path(os.environ.get(names.ENV_TERMINATION_LOG, names.TERMINATION_LOG))
    if path.parent == Path("/dev") and not path.exists():
        return
    path.write_text(text, encoding="utf-8")


def guarded(work: Callable[[], PrepareResult | TrainResult | None]) -> int:
    """Run a process's work; say how it ended and return the exit code. The one broad `except` of the trainer."""
    try:
        result = work()
    except Exception as error:
        fault = as_fault(error)
        if fault is None:
            traceback.print_exc()
            return 1
        if not isinstance(fault, SavedOnSigterm | SpecFault | DatasetNotFound | DatasetInvalid):
            traceback.print_exc()
        print(f"{fault.reason}: {fault}", file=sys.stderr, flush=True)
        write_termination_message(dump_result(fault.to_result()))
        if isinstance(fault, PeerLost):
            # Its traceback holds the group of the ranks: kept until `leave` has ended the process.
            sys.last_value = error
        return int(fault.code)
    if result is not None:
        write_termination_message(dump_result(result))
    return int(ExitCode.OK)


def leave(code: int) -> NoReturn:
    """End the process with what `guarded` returned.

    Where a peer is gone nothing is taken apart first. A rank was once seen to crash after its last words, and then has
    another exit code: probably as gloo's group, with words to that peer still on their way, was let go of.
    """
    if code != ExitCode.PEER_LOST:
        sys.exit(code)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
