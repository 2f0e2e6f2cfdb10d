"""One timed process of `benchmarks/training.py`: ours, or a script of diffusers.

python benchmarks/timed/training.py ours|theirs STEPS OUT …: writes the time and the processor time after each
optimizer step and the peaks of resident memory and of a GPU's allocated memory to OUT, and ends after STEPS steps.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path


def main(mode: str, steps: int, out: Path, rest: list[str]) -> None:
    """Run one side in this process, note the time after each optimizer step, and end it after the last one."""
    import resource

    stamps: list[float] = []
    used: list[float] = []

    def stepped(*_: object) -> None:
        stamps.append(time.time())
        used.append(time.process_time())
        if len(stamps) == steps:
            import torch

            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            gpu = torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_initialized() else 0.0
            out.write_text(json.dumps({"stamps": stamps, "used": used, "peak_mib": peak, "gpu_mib": gpu}))
            os._exit(0)

    def watch() -> None:
        from torch.optim.optimizer import register_optimizer_step_post_hook

        register_optimizer_step_post_hook(stepped)

    if mode == "ours":
        ours(rest, watch)
    else:
        theirs(rest, watch)


def ours(rest: list[str], watch: Callable[[], None]) -> None:
    """`dreambooth run` without MLflow: prepare and train in one process."""
    from dataclasses import replace
    from functools import cache

    from dreambooth_trainer import libraries
    from dreambooth_trainer.context import Tracking, laptop_context
    from dreambooth_trainer.process import settle_libraries
    from dreambooth_trainer.run import read_job, run

    settle_libraries()
    job_file, folder, action = Path(rest[0]), Path(rest[1]), rest[2]
    job, metadata = read_job(job_file)
    ctx = replace(laptop_context(job, metadata, job_file, folder, terminal=False), tracking=Tracking())
    if action == "prepare":
        from dreambooth_trainer.process import prepare_process

        prepare_process(ctx)
        return
    load = libraries.load

    @cache
    def watched(compiler: bool) -> None:
        load(compiler)
        watch()

    # The hook is torch's, which is to be imported as the trainer imports it.
    libraries.load = watched
    run(ctx, folder)


def theirs(rest: list[str], watch: Callable[[], None]) -> None:
    """A script as it stands. No tracker is started, as none is on the other side."""
    import runpy

    import accelerate.accelerator

    accelerate.accelerator.filter_trackers = lambda *_args, **_kwargs: []
    watch()
    sys.argv = rest
    runpy.run_path(rest[0], run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:])
