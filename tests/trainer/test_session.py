"""Resume: exact, proven by hash, after a real SIGKILL."""

import os
import random
import re
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from dreambooth_api.exits import ExitCode
from dreambooth_trainer import dataset, loop, priors
from dreambooth_trainer.checkpoint import Checkpoints
from dreambooth_trainer.config import fingerprint
from dreambooth_trainer.context import Mirror
from dreambooth_trainer.family import Family
from dreambooth_trainer.faults import CheckpointsCorrupt, DatasetInvalid, NonFiniteLoss
from dreambooth_trainer.prepare import Inputs, read_prepared
from dreambooth_trainer.progress import Console
from dreambooth_trainer.store import FolderStore
from tests.trainer.conftest import final_hash
from tests.trainer.test_distributed import environment

HOW = {
    "LoRA": {"training": {"steps": 6, "ema": 0.9, "gradientAccumulation": 2, "lrScheduler": "cosine"}},
    "Full": {"method": {"type": "Full"}, "training": {"steps": 6, "snrGamma": 5.0, "flip": True}},
    "Prodigy": {"training": {"steps": 6, "optimizer": "Prodigy", "learningRate": 1.0}},
    "Adafactor, learned token": {
        "method": {"learnToken": True},
        "training": {"steps": 6, "optimizer": "Adafactor", "ema": 0.9, "snrGamma": 5.0},
    },
}


def train_until_killed(ctx, at: int) -> None:
    """The child's part: train, and be killed in the middle of the step after `at` steps, once there is a checkpoint."""
    from dreambooth_api.reasons import Phase
    from dreambooth_trainer.progress import Board, Console
    from dreambooth_trainer.tracking import NullTracker

    torch.set_num_threads(1)
    loss = loop.dreambooth_loss
    step = loop.take_step

    def killed(*args, **options):
        while not Checkpoints(ctx, print).committed():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)
        return loss(*args, **options)

    def counted(session):
        if session.step == at:
            loop.dreambooth_loss = killed
        return step(session)

    loop.take_step = counted
    loop.train(ctx, loop.Desk(Board(ctx, Phase.TRAINING), Console(silent=True), NullTracker()))


@pytest.mark.parametrize("how", HOW)
def test_killed_and_resumed_is_equal_to_uninterrupted(ready, desk, processes, how: str) -> None:
    straight, killed = ready("straight", **HOW[how]), ready("killed", **HOW[how])
    at = random.randrange(3, 6)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        child = processes.Process(target=train_until_killed, args=(killed, at))
        child.start()
        loop.train(straight, desk(straight))
        child.join(180)
        assert child.exitcode == -signal.SIGKILL
        checkpoints = Checkpoints(killed, print)
        assert checkpoints.committed()[-1] <= at
        told = desk(killed)
        loop.train(killed, told)
    finally:
        torch.set_num_threads(threads)
    assert told.board.resumes == 1
    assert checkpoints.committed() == [4, 6]
    assert final_hash(killed) == final_hash(straight), f"killed in the step after {at}"


def rank_that_tells(ctx, rank: int, port: int, told: Path, killed_at: int | None = None) -> None:
    """Train; leave a line for each sample. Rank 1 dies after `killed_at` steps, once there is a checkpoint."""
    from dreambooth_api.reasons import Phase
    from dreambooth_trainer.faults import guarded, leave
    from dreambooth_trainer.progress import Board
    from dreambooth_trainer.tracking import NullTracker

    environment(rank, port)
    step = loop.take_step

    def watched(session):
        if session.step == killed_at and rank == 1:
            while not Checkpoints(ctx).committed():
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)
        traces = step(session)
        with told.open("a") as file:
            file.writelines(lines(traces))
        return traces

    loop.take_step = watched
    desk = loop.Desk(Board(ctx, Phase.TRAINING), Console(silent=True), NullTracker())
    leave(guarded(lambda: loop.train(ctx, desk)))


def lines(traces: list[loop.Trace]) -> list[str]:
    """A line for each sample: step, loss, name."""
    return [
        f"{trace.step}|{float(loss)}|{name}\n"
        for trace in traces
        for loss, name in zip(trace.per_sample, trace.names, strict=True)
    ]


@pytest.fixture
def both_ranks(processes, free_port, tmp_path: Path) -> Callable:
    """`both_ranks(ctx, name, killed_at)`: two processes that train, and write what they took to the file `name`."""

    def start(ctx, name: str, killed_at: int | None = None) -> list:
        port, told = free_port(), tmp_path / name
        ranks = [processes.Process(target=rank_that_tells, args=(ctx, r, port, told, killed_at)) for r in range(2)]
        for process in ranks:
            process.start()
        return ranks

    return start


def exit_codes(ranks: list) -> list[int | None]:
    for process in ranks:
        process.join(120)
    return [process.exitcode for process in ranks]


def test_a_killed_rank_ends_the_others_and_all_go_on_exactly(
    ready, desk, both_ranks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = {"training": {"steps": 6, "batchSize": 1, "ema": 0.9}, "checkpoints": {"everySteps": 2, "keep": 9}}
    straight, killed = ready("straight", **how), ready("killed", **how)
    at = random.randrange(3, 6)
    undisturbed, first = both_ranks(straight, "straight.txt"), both_ranks(killed, "killed.txt", killed_at=at)
    assert exit_codes(first) == [ExitCode.PEER_LOST, -signal.SIGKILL]
    resumed_at = Checkpoints(killed).committed()[-1]
    assert resumed_at <= at
    shutil.copytree(tmp_path / "killed", tmp_path / "alone")
    assert exit_codes(both_ranks(killed, "again.txt")) == [ExitCode.OK, ExitCode.OK]
    assert exit_codes(undisturbed) == [ExitCode.OK, ExitCode.OK]
    assert final_hash(killed) == final_hash(straight), f"rank 1 killed after {at} steps"

    # By one rank, which takes half as many in a step: the very next samples, seen by the very same weights.
    alone = replace(killed, store=FolderStore(tmp_path / "alone" / "store"), work=tmp_path / "alone" / "work")
    traces: list[loop.Trace] = []
    step = loop.take_step
    monkeypatch.setattr(loop, "take_step", lambda session: traces.extend(found := step(session)) or found)
    loop.train(alone, desk(alone))
    stream = [line.rstrip().split("|") for line in (tmp_path / "straight.txt").read_text().splitlines()]
    losses = {name: float(loss) for at, loss, name in stream if int(at) >= resumed_at}
    taken = [line.rstrip().split("|") for line in lines(traces)]
    assert [int(at) for at, _, _ in taken] == [at for at in range(resumed_at, 6) for _ in ("subject", "class")]
    next_ones = sorted(losses, key=sample_number)[: len(taken)]
    assert sorted(name for _, _, name in taken) == sorted(next_ones)
    for _, loss, name in taken[:2]:
        assert float(loss) == pytest.approx(losses[name], rel=1e-3)


def sample_number(name: str) -> int:
    """Of `1.png (sample 7, …)`."""
    return int(re.search(r"sample (\d+)", name)[1])


def test_finished_and_run_again_trains_nothing(ready, desk, monkeypatch: pytest.MonkeyPatch) -> None:
    ctx = ready()
    first = loop.train(ctx, desk(ctx))
    monkeypatch.setattr(loop, "take_step", lambda session: pytest.fail("a step was taken"))
    second = loop.train(ctx, desk(ctx))
    assert first is not None
    assert second is not None
    assert second.artifact == first.artifact


def test_other_settings_do_not_continue_a_checkpoint(ready, desk) -> None:
    ctx = ready()
    loop.train(ctx, desk(ctx))
    other = replace(
        ctx, spec=ctx.spec.model_copy(update={"training": ctx.spec.training.model_copy(update={"seed": 9})})
    )
    with pytest.raises(CheckpointsCorrupt):
        loop.train(other, desk(other))


def test_pictures_that_changed_are_refused(ready, desk, tmp_path: Path, examples: Path) -> None:
    ctx = ready()
    shutil.copytree(examples, tmp_path / "examples", ignore=shutil.ignore_patterns("world", "subjects"))
    (tmp_path / "examples" / "robot" / "images" / "1.png").unlink()
    changed = replace(ctx, mirror=Mirror("s3://dreambooth/examples", tmp_path / "examples"))
    with pytest.raises(DatasetInvalid, match="pictures changed"):
        loop.train(changed, desk(changed))


def test_a_loss_that_is_not_finite_stops_and_leaves_no_checkpoint_of_it(ready, desk) -> None:
    ctx = ready(training={"steps": 6, "learningRate": 10.0, "optimizer": "Adafactor", "maxGradNorm": 1e6})
    real, calls = loop.sample_errors, []

    def spoilt(prediction, *others):
        calls.append(1)
        return real(prediction * (float("nan") if len(calls) == 4 else 1), *others)

    loop.sample_errors = spoilt
    try:
        with pytest.raises(NonFiniteLoss, match=r"nan at step 4, learning rate 1\.0e\+01, on .*\.png \(sample"):
            loop.train(ctx, desk(ctx))
    finally:
        loop.sample_errors = real
    assert Checkpoints(ctx, print).committed() == [2]


def without_caches(ctx) -> None:
    """Take away what `prepare` left of latents and captions."""
    for kind in ("latents", "embeddings"):
        shutil.rmtree(ctx.store.root / kind)


@pytest.mark.parametrize("flip", [False, True])
def test_cached_and_uncached_training_are_equal(ready, desk, monkeypatch: pytest.MonkeyPatch, flip: bool) -> None:
    how = {"method": {"trainTextEncoder": False}, "training": {"flip": flip}}
    cold, warm = ready("cold", **how), ready("warm", **how)
    without_caches(cold)
    loop.train(cold, desk(cold))
    monkeypatch.setattr(dataset, "encode", lambda *_: pytest.fail("latents were computed"))
    monkeypatch.setattr(Family, "encode_text", lambda *_: pytest.fail("captions were encoded"))
    monkeypatch.setattr(priors, "load", lambda *_: pytest.fail("class images were fetched"))
    held, step = set[str](), loop.take_step
    monkeypatch.setattr(loop, "take_step", lambda session: held.update(vars(session.family)) or step(session))
    loop.train(warm, desk(warm))
    assert final_hash(warm) == final_hash(cold)
    # What `prepare` cached makes the U-Net all that a step needs.
    assert {"unet", "vae", "encoders", "tokenizers"} & held == {"unet"}


def test_pictures_of_several_shapes_are_trained_in_one_batch(
    ready, prepare, desk, tmp_path: Path, examples: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = tmp_path / "world"
    (world / "robot" / "images").mkdir(parents=True)
    (world / "base").symlink_to(examples / "base")
    for path in (examples / "robot" / "images").iterdir():
        with Image.open(path) as image:
            wide = image.resize((image.width * (3 if path.stem in "12" else 1), image.height))
            wide.save(world / "robot" / "images" / path.name)
    ctx = ready(training={"aspectRatioBuckets": True, "batchSize": 4, "steps": 2})
    ctx = replace(ctx, mirror=Mirror("s3://dreambooth/examples", world))
    prepare(ctx)
    shapes, real = [], loop.sample_errors
    monkeypatch.setattr(loop, "sample_errors", lambda p, *others: shapes.append(p.shape) or real(p, *others))
    result = loop.train(ctx, desk(ctx))
    assert result is not None
    assert result.artifact is not None
    # Two of the four pictures of each batch are wide; the four class images are square.
    assert sorted(set(map(tuple, shapes))) == [(2, 8, 4, 12), (6, 8, 8, 8)]


def test_every_class_image_is_used(ready) -> None:
    ctx = ready()
    got = Inputs(ctx)
    from dreambooth_trainer.distributed import World
    from dreambooth_trainer.progress import Console
    from dreambooth_trainer.session import begin

    session = begin(ctx, got, read_prepared(ctx), World(), Console(silent=True))
    names = [name for step in range(4) for name in session.data.batch(step * 2, 0, 0, 1).names]
    assert {name.split(" (")[0] for name in names if name.startswith("class")} == {f"class image {i}" for i in range(4)}
    assert session.fingerprint == fingerprint(ctx.spec, got.base_digest, got.pictures.digest)


def test_only_what_trains_has_gradients_and_the_vae_leaves_the_device(ready, desk) -> None:
    from dreambooth_trainer.distributed import World
    from dreambooth_trainer.progress import Console
    from dreambooth_trainer.session import begin

    ctx = ready(method={"trainTextEncoder": False})
    without_caches(ctx)
    got = Inputs(ctx)
    vae, moved, encoded = got.family.vae, [], []
    real = vae.encode
    vae.encode = lambda *args: (encoded.append(1), real(*args))[1]
    vae.to = lambda place: moved.append((place, len(encoded)))
    session = begin(ctx, got, read_prepared(ctx), World(), Console(silent=True))
    # Sent away once, after the last picture was encoded, and not asked again.
    assert moved == [("cpu", len(encoded))]
    assert encoded
    before = len(encoded)
    grads: set[str] = set()
    for name, parameter in session.trainee.trainable().items():
        parameter.register_hook(lambda _, name=name: grads.add(name))
    loop.take_step(session)
    assert len(encoded) == before
    assert grads == set(session.trainee.trainable())
    frozen = [*vae.parameters(), *got.family.text_encoder.parameters()]
    frozen += [p for n, p in got.family.unet.named_parameters() if "lora" not in n]
    assert not any(p.requires_grad or p.grad is not None for p in frozen)
