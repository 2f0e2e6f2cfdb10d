"""`training.compile`: the same training by programs, with one rank and two, killed and resumed."""

import os
import shutil
import signal
import sysconfig
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dreambooth_api.compiling import CACHE
from dreambooth_trainer import loop
from dreambooth_trainer.checkpoint import Checkpoints
from dreambooth_trainer.context import Mirror
from dreambooth_trainer.faults import SpecFault
from dreambooth_trainer.prepare import Inputs
from dreambooth_trainer.process import settle_libraries
from tests.slight import save_unet
from tests.trainer.conftest import final_hash
from tests.trainer.test_distributed import curve_of_a_rank
from tests.trainer.test_session import train_until_killed

pytestmark = pytest.mark.usefixtures("compiler")


def test_what_cannot_be_compiled_is_refused_before_anything_is_drawn(
    context, small_job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(**training: bool) -> str:
        with pytest.raises(SpecFault, match=r"training\.compile: ") as e:
            Inputs(context(small_job(training={"compile": True, **training}), tmp_path))
        return str(e.value)

    assert "aspectRatioBuckets" in refused(aspectRatioBuckets=True)
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    assert f"needs {tmp_path}/Python.h" in refused()
    monkeypatch.setenv("CXX", "/no/such/c++")
    assert "needs /no/such/c++" in refused()
    Inputs(context(small_job(), tmp_path))


def test_no_more_compilers_than_the_pod_has_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    env = {"OMP_NUM_THREADS": "3"}
    monkeypatch.setattr(os, "environ", env)
    settle_libraries()
    assert env["TORCHINDUCTOR_COMPILE_THREADS"] == "3"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Programs that both tests below have use for: compiling takes most of their time."""
    return tmp_path_factory.mktemp("programs")


@pytest.fixture
def slight_ready(tmp_path: Path, examples: Path, context, prepare, small_job) -> Callable:
    """`slight_ready(training={…})`: as `ready`, with a U-Net of so few layers that it is soon compiled."""
    base = tmp_path / "world" / "base"
    shutil.copytree(examples / "base", base, ignore=shutil.ignore_patterns("unet"))
    (tmp_path / "world" / "robot").symlink_to(examples / "robot")
    save_unet(base / "unet")

    def make(folder: str, **spec):
        spec = {"prior": {"weight": 0.0}, **spec}
        ctx = context(small_job(**spec), tmp_path / folder)
        ctx = replace(ctx, mirror=Mirror("s3://dreambooth/examples", tmp_path / "world"))
        prepare(ctx)
        return ctx

    return make


@pytest.mark.timeout(900)
def test_killed_and_resumed_is_equal_to_uninterrupted(
    slight_ready, desk, processes, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One process makes the programs, and is killed; all others find what it left."""
    how = {"training": {"compile": True, "steps": 4, "batchSize": 1, "ema": 0.9}, "checkpoints": {"everySteps": 1}}
    straight, killed = slight_ready("straight", **how), slight_ready("killed", **how)
    keep_programs(killed, shared)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        child = processes.Process(target=train_until_killed, args=(killed, 2))
        child.start()
        child.join(800)
        assert child.exitcode == -signal.SIGKILL
        made = programs(shared)
        monkeypatch.setenv(CACHE, str(shared))
        loop.train(straight, desk(straight))
        told = desk(killed)
        loop.train(killed, told)
    finally:
        torch.set_num_threads(threads)
    assert told.board.resumes == 1
    assert Checkpoints(killed, print).committed()[-1] == 4
    assert programs(shared) == made != set()
    assert final_hash(killed) == final_hash(straight)


def keep_programs(ctx, folder: Path) -> None:
    """Let the job's own place for them be `folder`."""
    ctx.work.mkdir(exist_ok=True)
    (ctx.work / "compiled").symlink_to(folder)


def programs(folder: Path) -> set[str]:
    """What is in a cache of compiled programs."""
    return {path.name for path in folder.rglob("*.so")}


@pytest.mark.timeout(900)
def test_two_ranks_train_as_without_it(slight_ready, processes, free_port, shared: Path, tmp_path: Path) -> None:
    """Losses of the later steps follow from averaged gradients of all that trains."""
    curves = []
    for compiled in (False, True):
        training = {"compile": compiled, "batchSize": 1, "learningRate": 1e-3}
        ctx, port = slight_ready(f"compiled-{compiled}", training=training), free_port()
        if compiled:
            keep_programs(ctx, shared)
        ranks = [processes.Process(target=curve_of_a_rank, args=(ctx, rank, 2, port, tmp_path)) for rank in range(2)]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join(400)
            assert process.exitcode == 0
        traces = [torch.load(tmp_path / f"2-{rank}.pt", weights_only=False) for rank in range(2)]
        curves.append(torch.stack([trace.per_sample for rank in traces for step in rank for trace in step]))
    assert programs(shared)
    torch.testing.assert_close(curves[1], curves[0], rtol=1e-4, atol=1e-5)
