"""`compile`: what is settled before torch is loaded, and whether this machine can compile at all."""

import hashlib
import os
import platform
from contextlib import suppress
from pathlib import Path

from dreambooth_api.compiling import CACHE, COMPILERS, lacking
from dreambooth_api.reasons import Reason
from dreambooth_server.faults import LoadFault
from dreambooth_server.settings import Places


def settle(places: Places) -> None:
    """Say where programs are kept and how many compilers may run, where the environment does not say otherwise."""
    os.environ.setdefault(CACHE, str(places.cache.absolute() / "compiled" / processor()))
    if threads := os.environ.get("OMP_NUM_THREADS"):
        os.environ.setdefault(COMPILERS, threads)


def check_compiler(device: str) -> None:
    """Raises LoadFault when programs for `device` (torch's name) cannot be made here."""
    if what := lacking(device):
        remedy = "add it (COMPILER when the image is built) or set compile to false"
        raise LoadFault(Reason.INVALID_SPEC, f"compile: needs {what}, which this image lacks: {remedy}")


def processor(about: Path = Path("/proc/cpuinfo")) -> str:
    """A name for this machine's type of processor: programs use all that it can do, and a folder that outlives pods may
    be seen by other nodes."""
    told = [platform.machine()]
    with suppress(OSError):
        first = about.read_text().split("\n\n", 1)[0]
        told += [
            line for line in first.splitlines() if line.startswith(("model name", "flags", "CPU part", "Features"))
        ]
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:12]
