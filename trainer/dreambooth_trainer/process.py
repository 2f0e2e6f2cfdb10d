"""A pod's process from door to door: context in, exit code and termination message out."""

import faulthandler
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from dreambooth_api.compiling import COMPILERS
from dreambooth_api.reasons import Phase, Reason
from dreambooth_api.result import PrepareResult, TrainResult
from dreambooth_trainer import libraries
from dreambooth_trainer.context import Context, pod_context
from dreambooth_trainer.faults import SavedOnSigterm, guarded, leave
from dreambooth_trainer.progress import Board, BoardServer, Console
from dreambooth_trainer.shard import Shard, pod_shard
from dreambooth_trainer.tracking import MlflowTracker, NullTracker, RunName, Tracker

if TYPE_CHECKING:
    from dreambooth_trainer.prepare import Inputs

# How long MLflow is given to catch up at the end, seconds: after a success, after a fault, before a kill.
PATIENCE = {"FINISHED": 120.0, "FAILED": 30.0, "KILLED": 5.0}


def run(process: str, job_file: Path, port: int) -> NoReturn:
    """`prepare` or `train`; ends the process with its exit code."""
    # A crash of a library says where, in the pod's log.
    faulthandler.enable()
    settle_libraries()
    end_on_sigterm()
    if process == "prepare":
        leave(guarded(lambda: prepare_pod(pod_context(job_file, port))))
    leave(guarded(lambda: train_process(pod_context(job_file, port))))


def settle_libraries() -> None:
    """Settings that libraries read when they are loaded, where the environment does not say otherwise.

    Their progress bars and advice are noise in a log of ours; and threads that spin while they wait make a step ten
    times slower wherever cores are shared.
    """
    for name, value in {
        "OMP_WAIT_POLICY": "PASSIVE",
        "TRANSFORMERS_VERBOSITY": "error",
        "DIFFUSERS_VERBOSITY": "error",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TQDM_DISABLE": "1",
        "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
    }.items():
        os.environ.setdefault(name, value)
    if threads := os.environ.get("OMP_NUM_THREADS"):
        os.environ.setdefault(COMPILERS, threads)


def end_on_sigterm() -> None:
    """Where nothing is at stake, SIGTERM is an orderly end, so that an eviction is not counted as a failure."""

    def hear(_signal: int, _frame: object) -> None:
        raise SavedOnSigterm("asked to end; what is in the store is kept")

    signal.signal(signal.SIGTERM, hear)


def prepare_pod(ctx: Context) -> PrepareResult:
    """`prepare_process` as one of the pods that share the work."""
    return prepare_process(ctx, pod_shard(ctx.spec.prepare_pods))[0]


def prepare_process(ctx: Context, shard: Shard = Shard()) -> tuple[PrepareResult, "Inputs"]:
    """Check the input, draw class images; the first of several pods waits for the others and scores the base.

    With the result comes what was loaded for it, for `train_process` in the same process.
    """
    from dreambooth_trainer.prepare import Inputs, prepare

    board = Board(ctx, Phase.PREPARING)
    ctx.store.trouble.tell = lambda message: board.trouble(Reason.STORE_UNAVAILABLE, message)
    server = BoardServer(board, ctx.port) if ctx.port is not None else None
    try:
        got = Inputs(ctx)
        return prepare(ctx, board, Console(ctx.terminal), shard, got), got
    finally:
        if server:
            server.close()


def train_process(ctx: Context, got: "Inputs | None" = None) -> TrainResult | None:
    """One rank: train; rank 0 scores, publishes and speaks to the outside. `got`: what this process has loaded."""
    leads = int(os.environ.get("RANK", "0")) == 0
    board = Board(ctx, Phase.TRAINING)
    ctx.store.trouble.tell = lambda message: board.trouble(Reason.STORE_UNAVAILABLE, message)
    server = BoardServer(board, ctx.port) if leads and ctx.port is not None else None
    # Before the tracker, whose thread imports MLflow: meanwhile nobody else may import.
    libraries.load(ctx.spec.training.compile)
    tracker = make_tracker(ctx, board) if leads else NullTracker()
    try:
        return _tracked(ctx, board, tracker, Console(ctx.terminal, silent=not leads), got)
    finally:
        if server:
            server.close()


def _tracked(
    ctx: Context, board: Board, tracker: Tracker, console: Console, got: "Inputs | None"
) -> TrainResult | None:
    from dreambooth_trainer.loop import Desk, train

    status = "FAILED"
    try:
        result = train(ctx, Desk(board, console, tracker), got)
        status = "FINISHED"
    except SavedOnSigterm:
        status = "KILLED"
        raise
    finally:
        console.close()
        tracker.finish(status, PATIENCE[status])
    # The run may have come to be known only while MLflow caught up.
    return result.model_copy(update={"run": board.report.run}) if result else None


def make_tracker(ctx: Context, board: Board) -> Tracker:
    """The tracker of rank 0."""
    if ctx.tracking.uri is None:
        return NullTracker()
    tracker = MlflowTracker(
        ctx.tracking,
        RunName(ctx.namespace, ctx.name, ctx.uid),
        on_run=board.tracked,
        on_away=lambda warning: board.trouble(Reason.TRACKING_UNAVAILABLE, warning),
    )
    if ctx.image:
        tracker.tags({"dreambooth.image": ctx.image})
    return tracker
