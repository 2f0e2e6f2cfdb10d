"""What torch's compiler needs of a machine, wherever it is asked for: in a training's steps or in a replica."""

import os
import shutil
import sysconfig
from pathlib import Path

# Where torch keeps what it compiled; who sets it shares programs between pods of one base on one type of machine.
CACHE = "TORCHINDUCTOR_CACHE_DIR"
# How many compilers torch runs at once; by itself one for each core of the node, of which a pod may have few.
COMPILERS = "TORCHINDUCTOR_COMPILE_THREADS"


def lacking(device: str) -> str | None:
    """The first thing that programs for `device` (torch's name) need and this machine lacks; None: nothing."""
    # Of a GPU's programs only what calls them is in C.
    name, compiler = ("CXX", "g++") if device == "cpu" else ("CC", "gcc")
    compiler = os.environ.get(name, compiler)
    headers = Path(sysconfig.get_path("include")) / "Python.h"
    needed = ((compiler, shutil.which(compiler)), (str(headers), headers.is_file()))
    return next((what for what, there in needed if not there), None)
