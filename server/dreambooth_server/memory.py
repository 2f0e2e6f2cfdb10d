"""How much memory this process uses where it draws."""

import os
import sys
from pathlib import Path


def memory_in_use() -> int:
    """The GPU's, as torch reserved it; without a GPU, this process's resident memory; bytes."""
    # Not imported here: before the weights are loaded there is nothing to ask.
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "cuda") and torch.cuda.is_available():
        return int(torch.cuda.memory_reserved())
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else 0
