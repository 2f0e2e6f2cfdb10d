"""Two real processes over gloo on loopback: gradients are averaged, the stream is one, they stop together."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dreambooth_api.exits import ExitCode
from dreambooth_trainer import loop, scoring
from dreambooth_trainer.checkpoint import Checkpoints
from dreambooth_trainer.dataset import Batch
from dreambooth_trainer.distributed import World, join
from dreambooth_trainer.faults import CheckpointsCorrupt
from dreambooth_trainer.loss import dreambooth_loss, sample_errors
from dreambooth_trainer.prepare import Inputs, read_prepared
from dreambooth_trainer.progress import Console
from dreambooth_trainer.session import Session, begin


def environment(rank: int, port: int) -> None:
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    torch.set_num_threads(1)


def session_of(ctx, world: World) -> Session:
    return begin(ctx, Inputs(ctx), read_prepared(ctx), world, Console(silent=True))


def local_gradients(session: Session) -> dict[str, torch.Tensor]:
    """Of this rank's batch alone, without DDP."""
    batch: Batch = session.data.batch(0, 0, session.world.rank, session.world.size)
    (group,) = batch.groups
    noisy = session.family.add_noise(group.latents, group.noise, group.timesteps)
    target = session.family.target(group.latents, group.noise, group.timesteps)
    (prediction,) = session.trainee([noisy], [group], session.text)
    errors = sample_errors(prediction, target)
    dreambooth_loss(errors, subjects=batch.subjects, prior_weight=1.0).total.backward()
    found = {name: p.grad.clone() for name, p in session.trainee.trainable().items()}
    session.trainee.zero_grad()
    return found


def stepped_gradients(session: Session) -> dict[str, torch.Tensor]:
    """What the optimizer gets in the first step."""
    found: dict[str, torch.Tensor] = {}

    def keep(*_):
        found.update({name: p.grad.clone() for name, p in session.trainee.trainable().items()})

    session.optimizer.optimizer.register_step_pre_hook(keep)
    loop.take_step(session)
    return found


def one_rank(ctx, rank: int, port: int, out: Path) -> None:
    environment(rank, port)
    world = join("cpu")
    session = session_of(ctx, world)
    local, stepped = local_gradients(session), stepped_gradients(session)
    weights = {name: p.detach() for name, p in session.trainee.trainable().items()}
    torch.save({"local": local, "stepped": stepped, "weights": weights}, out / f"rank{rank}.pt")
    world.close()


EVERYTHING = {
    "method": {"learnToken": True, "lora": {"rank": 4, "dora": True}},
    "training": {"gradientCheckpointing": True, "gradientAccumulation": 2, "snrGamma": 5.0, "ema": 0.9},
}
METHODS = {"LoRA": {}, "Full": {"method": {"type": "Full"}}, "DoRA, token, checkpointing, min-SNR": EVERYTHING}


@pytest.mark.parametrize("method", METHODS)
def test_gradients_are_averaged(ready, processes, free_port, tmp_path: Path, method: str) -> None:
    how = METHODS[method]
    training = {"maxGradNorm": 1e6, **how.get("training", {})}
    spec = {**how, "training": training}
    ctx, port = ready("two", **spec), free_port()
    ranks = [processes.Process(target=one_rank, args=(ctx, rank, port, tmp_path)) for rank in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(120)
        assert process.exitcode == 0
    a, b = (torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2))
    double = ready("one", **{**spec, "training": {**training, "batchSize": 4}})
    alone = stepped_gradients(session_of(double, World()))
    # LoRA's A has no gradient while B is zero: names with one are what is compared.
    named = [name for name, gradient in alone.items() if gradient.abs().max() > 0]
    assert len(named) >= len(alone) // 2
    assert any(not torch.allclose(a["local"][n], b["local"][n], rtol=0.1) for n in named)
    for name in alone:
        assert torch.equal(a["weights"][name], b["weights"][name])
        assert torch.equal(a["stepped"][name], b["stepped"][name])
        torch.testing.assert_close(a["stepped"][name], alone[name], rtol=1e-3, atol=1e-6)
        if "gradientAccumulation" not in training:
            average = (a["local"][name] + b["local"][name]) / 2
            torch.testing.assert_close(a["stepped"][name], average, rtol=1e-3, atol=1e-6)


def curve_of_a_rank(ctx, rank: int, size: int, port: int, out: Path) -> None:
    """Train; leave each step's samples and their losses."""
    environment(rank, port)
    os.environ["WORLD_SIZE"] = str(size)
    world = join("cpu")
    session = session_of(ctx, world)
    torch.save([loop.take_step(session) for _ in range(3)], out / f"{size}-{rank}.pt")
    world.close()


def test_one_two_and_four_ranks_consume_the_same_stream(ready, processes, free_port, tmp_path: Path) -> None:
    """Each sample by name, index and timestep; the losses differ only by the order in which floats are added."""
    curves = []
    for size in (1, 2, 4):
        ctx, port = ready(f"world{size}", training={"batchSize": 4 // size, "learningRate": 1e-3}), free_port()
        ranks = [
            processes.Process(target=curve_of_a_rank, args=(ctx, rank, size, port, tmp_path)) for rank in range(size)
        ]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join(180)
            assert process.exitcode == 0
        traces = [torch.load(tmp_path / f"{size}-{rank}.pt", weights_only=False) for rank in range(size)]
        curves.append(
            [
                {
                    name: float(loss)
                    for rank in traces
                    for t in rank[step]
                    for name, loss in zip(t.names, t.per_sample, strict=True)
                }
                for step in range(3)
            ]
        )
    alone = curves[0]
    assert all(len(step) == 8 for step in alone)
    for other in curves[1:]:
        for step, expected in zip(other, alone, strict=True):
            assert step == pytest.approx(expected, rel=1e-3)
    assert len({name for step in alone for name in step}) == 24


def rank_until_told(ctx, rank: int, port: int, out: Path) -> None:
    from dreambooth_api.reasons import Phase
    from dreambooth_trainer.faults import as_fault
    from dreambooth_trainer.progress import Board
    from dreambooth_trainer.tracking import NullTracker

    environment(rank, port)
    board = Board(ctx, Phase.TRAINING)
    step = loop.take_step

    def slow(session):
        time.sleep(0.1)
        traces = step(session)
        (out / f"step{rank}").write_text(str(session.step))
        return traces

    loop.take_step = slow
    try:
        loop.train(ctx, loop.Desk(board, Console(silent=True), NullTracker()))
    except Exception as error:
        fault = as_fault(error)
        os._exit(fault.code if fault else 1)


@pytest.fixture
def two_ranks(ready, processes, free_port, tmp_path: Path) -> Callable:
    """`two_ranks()`: a long training by two processes, past its third step, and its context."""

    def start():
        ctx, port = ready(training={"steps": 500}, checkpoints={"everySteps": 400}), free_port()
        ranks = [processes.Process(target=rank_until_told, args=(ctx, rank, port, tmp_path)) for rank in range(2)]
        for process in ranks:
            process.start()
        deadline = time.monotonic() + 90
        while not (tmp_path / "step1").exists() or int((tmp_path / "step1").read_text() or 0) < 3:
            assert all(process.is_alive() for process in ranks)
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return ctx, ranks

    return start


def test_a_sigterm_to_one_rank_stops_all_at_the_same_step(two_ranks, tmp_path: Path) -> None:
    ctx, ranks = two_ranks()
    os.kill(ranks[1].pid, signal.SIGTERM)
    for process in ranks:
        process.join(60)
        assert process.exitcode == ExitCode.SAVED_ON_SIGTERM
    steps = {int((tmp_path / f"step{rank}").read_text()) for rank in range(2)}
    assert len(steps) == 1
    assert Checkpoints(ctx, print).committed() == sorted(steps)


def test_after_the_last_step_no_rank_waits_for_another(ready, desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pods that ended well do not come back; rank 0, started again, scores and publishes alone."""
    ctx = ready()
    first = loop.train(ctx, desk(ctx))
    monkeypatch.setattr(loop, "join", lambda device: pytest.fail("waited for the other ranks"))
    for rank, expected in ((0, first.artifact), (1, None)):
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("RANK", str(rank))
        result = loop.train(ctx, desk(ctx))
        assert (result.artifact if result else None) == expected
    # Spoilt: rank 0 does not train the rest alone, on other batches than the job asks for.
    monkeypatch.setenv("RANK", "0")
    (Checkpoints(ctx).at(4).root / "weights.safetensors").write_bytes(b"spoilt")
    monkeypatch.setattr(loop, "take_step", lambda session: pytest.fail("a step was taken alone"))
    with pytest.raises(CheckpointsCorrupt, match="of step 4, the last, is spoilt, and the other ranks have ended"):
        loop.train(ctx, desk(ctx))


def rank_with(trouble: Callable, ctx, rank: int, port: int) -> None:
    """Train, with `trouble(ctx)` on rank 0."""
    from dreambooth_api.reasons import Phase
    from dreambooth_trainer.faults import guarded, leave
    from dreambooth_trainer.progress import Board
    from dreambooth_trainer.tracking import NullTracker

    environment(rank, port)
    if rank == 0:
        trouble(ctx)
    desk = loop.Desk(Board(ctx, Phase.TRAINING), Console(silent=True), NullTracker())
    leave(guarded(lambda: loop.train(ctx, desk)))


def scores_for_an_hour(ctx) -> None:
    def measure(*_):
        (ctx.work / "scoring").touch()
        time.sleep(3600)

    scoring.measure = measure


def dies_before_the_last_state_is_committed(ctx) -> None:
    real = Checkpoints.commit

    def commit(self, state, keep):
        if state.step == ctx.spec.training.steps:
            time.sleep(2)
            os.kill(os.getpid(), signal.SIGKILL)
        return real(self, state, keep)

    Checkpoints.commit = commit


def test_a_sigterm_to_another_rank_ends_the_scoring(ready, processes, free_port) -> None:
    ctx = ready(scoring={"dino": "s3://dreambooth/examples/encoder-dino"}, checkpoints={"everySteps": 1})
    port = free_port()
    ranks = [processes.Process(target=rank_with, args=(scores_for_an_hour, ctx, rank, port)) for rank in range(2)]
    for process in ranks:
        process.start()
    deadline = time.monotonic() + 120
    while not (ctx.work / "scoring").exists():
        assert time.monotonic() < deadline
        assert all(process.is_alive() for process in ranks)
        time.sleep(0.05)
    os.kill(ranks[1].pid, signal.SIGTERM)
    for process in ranks:
        process.join(60)
        assert process.exitcode == ExitCode.SAVED_ON_SIGTERM
    assert Checkpoints(ctx).committed() == [1]


def test_no_rank_ends_well_before_the_last_state_is_committed(ready, processes, free_port) -> None:
    """A pod that ended well does not come back, and rank 0 would wait for it."""
    ctx, port = ready(training={"steps": 2}, checkpoints={"everySteps": 1}), free_port()
    trouble = dies_before_the_last_state_is_committed
    ranks = [processes.Process(target=rank_with, args=(trouble, ctx, rank, port)) for rank in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(120)
    assert [process.exitcode for process in ranks] == [-signal.SIGKILL, ExitCode.PEER_LOST]
    assert Checkpoints(ctx).committed() == [1]
