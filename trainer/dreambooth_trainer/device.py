"""What a process uses of its device: memory at its peak, and how busy a GPU is."""

import resource
import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Usage:
    """Peak bytes: of the GPU's memory where there is one, else resident in RAM; `busy` in [0, 1], where known."""

    memory_bytes: int
    on_gpu: bool = False
    busy: float | None = None


def usage(device: str) -> Usage:
    """Usage of this process's device ("cpu" or "cuda"); `busy` needs NVIDIA's `nvidia-ml-py` in the image."""
    if device != "cuda":
        # The one call whose unit depends on the system: bytes on macOS, KiB elsewhere.
        unit = 1 if sys.platform == "darwin" else 1024
        return Usage(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
    import torch

    try:
        busy: float | None = torch.cuda.utilization() / 100
    except (ModuleNotFoundError, RuntimeError):
        busy = None
    return Usage(torch.cuda.max_memory_allocated(), True, busy)
