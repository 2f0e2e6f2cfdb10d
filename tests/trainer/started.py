"""python -m tests.trainer.started lean|whole FOLDER…: trains the job in each folder, in turn, in a process of its own.

`whole` imports the libraries as they are made. Each folder gets the losses, by step and sample.
"""

import contextlib
import sys
from dataclasses import replace
from pathlib import Path

from dreambooth_api import imports
from dreambooth_api.job import Optimizer
from dreambooth_trainer import libraries, run
from dreambooth_trainer.context import Context, Tracking, laptop_context
from dreambooth_trainer.process import settle_libraries

COMPILER = "torch._dynamo.convert_frame"
# One module of each package that is left out.
LEFT_OUT = {
    COMPILER,
    "scipy.stats._stats_py",
    "diffusers.models.unets.unet_motion_model",
}


def main(how: str, folders: list[Path]) -> None:
    """Train, and hold against `LEFT_OUT` what is loaded afterwards."""
    lean = how == "lean"
    if not lean:
        imports.lean = lambda **_: contextlib.nullcontext()
    settle_libraries()
    libraries.load(False)
    from dreambooth_trainer import loop
    from tests.trainer.test_session import lines

    compiler, step = vars(sys.modules["torch._dynamo"]), loop.take_step
    asked = compiler.get("__getattr__")
    for folder in folders:
        ctx = context_of(folder)
        # bitsandbytes compiles.
        compiles = ctx.spec.training.optimizer is Optimizer.ADAMW_8BIT
        if lean:
            compiler["__getattr__"] = asked if compiles else refused

        def told(session, told_in=folder / "losses"):
            traces = step(session)
            with told_in.open("a") as file:
                file.writelines(lines(traces))
            return traces

        loop.take_step = told
        run.run(ctx, folder)
        loaded = sys.modules.keys() & LEFT_OUT
        assert loaded == (LEFT_OUT if not lean else {COMPILER} if compiles else set()), f"{folder.name}: {loaded}"


def context_of(folder: Path) -> Context:
    """Without MLflow."""
    job, metadata = run.read_job(folder / "job.json")
    return replace(laptop_context(job, metadata, folder / "job.json", folder, terminal=False), tracking=Tracking())


def refused(name: str) -> None:
    """In the place of torch's compiler: the traceback says who waits for all of it."""
    raise AssertionError(f"somebody asks for torch._dynamo.{name}, which is not known beforehand")


if __name__ == "__main__":
    main(sys.argv[1], [Path(argument) for argument in sys.argv[2:]])
