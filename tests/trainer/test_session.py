"""Resume: exact, proven by hash, after a real SIGKILL."""

import hashlib
import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dreambooth_trainer import dataset, loop, priors, scoring
from dreambooth_trainer.checkpoint import Checkpoints
from dreambooth_trainer.config import fingerprint
from dreambooth_trainer.family import Family
from dreambooth_trainer.faults import CheckpointsCorrupt, DatasetInvalid, NonFiniteLoss
from dreambooth_trainer.prepare import Inputs, read_prepared

HOW = {
    "LoRA": {"training": {"steps": 8, "ema": 0.9, "gradientAccumulation": 2, "lrScheduler": "cosine"}},
    "Full": {"method": {"type": "Full"}, "training": {"steps": 8, "snrGamma": 5.0, "flip": True}},
}


def final_hash(ctx) -> str:
    """Of the weights, averages and optimizer state in the last checkpoint."""
    checkpoints = Checkpoints(ctx, print)
    store = checkpoints.at(checkpoints.committed()[-1])
    files = [store.read(name) for name in store.keys() if name.endswith(".safetensors")]  # noqa: SIM118
    return hashlib.sha256(b"".join(files)).hexdigest()


def train_slowly(ctx, pause: float) -> None:
    """The child's part: train, a pause after each step, until someone kills it."""
    from dreambooth_api.reasons import Phase
    from dreambooth_trainer.progress import Board, Console
    from dreambooth_trainer.tracking import NullTracker

    torch.set_num_threads(1)
    step = loop.take_step

    def slow(session):
        time.sleep(pause)
        return step(session)

    loop.take_step = slow
    loop.train(ctx, loop.Desk(Board(ctx, Phase.TRAINING), Console(silent=True), NullTracker()))


@pytest.mark.parametrize("how", HOW)
def test_killed_and_resumed_is_equal_to_uninterrupted(ready, desk, processes, how: str) -> None:
    straight, killed = ready("straight", **HOW[how]), ready("killed", **HOW[how])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        loop.train(straight, desk(straight))
        child = processes.Process(target=train_slowly, args=(killed, 0.5))
        child.start()
        checkpoints = Checkpoints(killed, print)
        deadline = time.monotonic() + 90
        while 4 not in checkpoints.committed():
            assert child.is_alive()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        assert checkpoints.committed()[-1] < 8
        loop.train(killed, desk(killed))
    finally:
        torch.set_num_threads(threads)
    assert checkpoints.committed() == [6, 8]
    assert final_hash(killed) == final_hash(straight)


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
    from dreambooth_trainer.context import Mirror

    ctx = ready()
    shutil.copytree(examples, tmp_path / "examples", ignore=shutil.ignore_patterns("world", "subjects"))
    (tmp_path / "examples" / "robot" / "images" / "1.png").unlink()
    changed = replace(ctx, mirror=Mirror("s3://dreambooth/examples", tmp_path / "examples"))
    with pytest.raises(DatasetInvalid, match="pictures changed"):
        loop.train(changed, desk(changed))


def test_a_loss_that_is_not_finite_stops_and_leaves_no_checkpoint_of_it(ready, desk) -> None:
    ctx = ready(training={"steps": 6, "learningRate": 10.0, "optimizer": "Adafactor", "maxGradNorm": 1e6})
    real, calls = loop.dreambooth_loss, []

    def spoilt(prediction, target, **options):
        calls.append(1)
        return real(prediction * (float("nan") if len(calls) == 4 else 1), target, **options)

    loop.dreambooth_loss = spoilt
    try:
        with pytest.raises(NonFiniteLoss, match=r"nan at step 4, learning rate 1\.0e\+01, on .*\.png \(sample"):
            loop.train(ctx, desk(ctx))
    finally:
        loop.dreambooth_loss = real
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


MEASURE = scoring.measure
SCORED = {
    "scoring": {"dino": "s3://dreambooth/examples/encoder-dino"},
    "checkpoints": {"everySteps": 1, "keep": 1},
    "training": {"steps": 5, "ema": 0.5},
}


def by_plan(monkeypatch: pytest.MonkeyPatch, values: list[float]) -> list[float]:
    """Fidelity goes as `values` say, in the order in which checkpoints are measured; the list is used up."""
    left = list(values)
    monkeypatch.setattr(scoring, "measure", lambda *args: {**MEASURE(*args), "dino": left.pop(0)})
    return left


def test_the_best_checkpoint_is_published_and_outlives_pruning(ready, desk, monkeypatch: pytest.MonkeyPatch) -> None:
    from dreambooth_api.artifact import ModelCard

    ctx, best = ready(**SCORED), ready("best", **{**SCORED, "publish": {"checkpoint": "Last"}})
    by_plan(monkeypatch, [0.1, 0.9, 0.3, 0.2, 0.4])
    told = desk(ctx)
    result = loop.train(ctx, told)
    assert Checkpoints(ctx, print).committed() == [2, 5]
    assert (result.best_checkpoint.step, result.checkpoint.step, result.scores.dino) == (2, 5, "0.900")
    assert told.board.report.scores == result.scores
    card = ctx.store.at(result.artifact.uri.split("/store/")[1]).read("model.json")
    assert ModelCard.model_validate_json(card).trained_steps == 2
    # The very weights of step 2: a run that ends there with the same rate publishes the same content.
    by_plan(monkeypatch, [0.1, 0.2])
    two_steps = best.spec.training.model_copy(update={"steps": 2})
    short = replace(best, spec=best.spec.model_copy(update={"training": two_steps}))
    assert loop.train(short, desk(short)).artifact.digest == result.artifact.digest


def test_early_stop_is_remembered_by_a_restart(ready, desk, monkeypatch: pytest.MonkeyPatch) -> None:
    ctx = ready(**{**SCORED, "scoring": {**SCORED["scoring"], "patience": 2}})
    left = by_plan(monkeypatch, [0.5, 0.4, 0.3])
    first = loop.train(ctx, desk(ctx))
    assert left == []
    assert (first.progress.step, first.best_checkpoint.step) == (3, 1)
    monkeypatch.setattr(loop, "take_step", lambda session: pytest.fail("a step was taken"))
    monkeypatch.setattr(loop, "join", lambda device: pytest.fail("waited for the other ranks"))
    again = loop.train(ctx, desk(ctx))
    assert again.artifact == first.artifact
    assert again.scores == first.scores


def test_a_checkpoint_left_unscored_by_a_kill_is_scored_first(ready, desk, monkeypatch: pytest.MonkeyPatch) -> None:
    from dreambooth_trainer.evaluator import Evaluator

    ctx = ready(**SCORED)
    by_plan(monkeypatch, [0.1, 0.9, 0.3, 0.2, 0.4])
    real = Evaluator.evaluate

    def killed(self):
        if self.session.step == 2:
            raise KeyboardInterrupt
        real(self)

    monkeypatch.setattr(Evaluator, "evaluate", killed)
    with pytest.raises(KeyboardInterrupt):
        loop.train(ctx, desk(ctx))
    assert Checkpoints(ctx, print).committed() == [1, 2]
    monkeypatch.setattr(Evaluator, "evaluate", real)
    assert loop.train(ctx, desk(ctx)).best_checkpoint.step == 2


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
