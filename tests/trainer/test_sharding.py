"""Two real processes over gloo that divide what is trained: the same training as when each holds all of it."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState

from dreambooth_api.exits import ExitCode
from dreambooth_api.job import Sharding
from dreambooth_api.names import SCORES
from dreambooth_trainer import loop
from dreambooth_trainer.checkpoint import Checkpoints, State
from tests.trainer.conftest import final_hash, merged
from tests.trainer.test_session import exit_codes, lines, rank_that_tells

FULL = {
    "method": {"type": "Full"},
    "training": {"steps": 3, "ema": 0.5, "gradientAccumulation": 2, "maxGradNorm": 0.1},
}
SCORED = {
    **FULL,
    "scoring": {"dino": "s3://dreambooth/examples/encoder-dino"},
    "validation": {"everySteps": 1},
}
LORA = {
    "method": {"learnToken": True, "lora": {"rank": 4, "dora": True}},
    "training": {"steps": 3, "gradientCheckpointing": True, "precision": "bf16"},
}


def divided(ctx):
    topology = ctx.spec.topology.model_copy(update={"sharding": Sharding.FULLY_SHARDED})
    return replace(ctx, spec=ctx.spec.model_copy(update={"topology": topology}))


@pytest.fixture
def train(processes, free_port, tmp_path: Path) -> Callable:
    """`train(ctx, killed_at)`: two ranks train to their end; their exit codes, and the losses by step and sample."""

    def run(ctx, killed_at: int | None = None) -> tuple[list, dict[str, float]]:
        told, port = tmp_path / f"told-{free_port()}", free_port()
        ranks = [processes.Process(target=rank_that_tells, args=(ctx, r, port, told, killed_at)) for r in range(2)]
        for process in ranks:
            process.start()
        codes = exit_codes(ranks)
        return codes, losses_of(told.read_text().splitlines())

    return run


def losses_of(told: Iterable[str]) -> dict[str, float]:
    """By step and sample, of the lines that ranks wrote."""
    parts = [line.split("|") for line in told]
    return {f"{step}|{name}": float(loss) for step, loss, name in parts}


def last(ctx) -> State:
    checkpoints = Checkpoints(ctx)
    return checkpoints.load(checkpoints.committed()[-1])


def assert_alike(a: State, b: State, rtol: float) -> None:
    """Equal but for the order in which floats are added."""
    assert (a.step, a.samples, a.fingerprint) == (b.step, b.samples, b.fingerprint)
    for one, other in ((a.weights, b.weights), (a.ema, b.ema)):
        assert one.keys() == other.keys()
        distance = sum(float((one[name] - other[name]).square().sum()) for name in one)
        size = sum(float(tensor.square().sum()) for tensor in other.values())
        assert distance <= rtol**2 * size
    assert a.optimizer["param_groups"] == b.optimizer["param_groups"]
    for index, values in a.optimizer["state"].items():
        assert {k: v.shape for k, v in values.items()} == {k: v.shape for k, v in b.optimizer["state"][index].items()}


def test_divided_ranks_train_score_and_publish_as_whole_ones(ready, train) -> None:
    """Full, with an average, accumulation, clipping and scoring; then killed and resumed, unscored."""
    from diffusers import UNet2DConditionModel

    whole, parts = ready("whole", **SCORED), divided(ready("parts", **SCORED))
    for ctx in (whole, parts):
        codes, losses = train(ctx)
        assert codes == [0, 0]
        if ctx is whole:
            expected = losses
    assert losses == pytest.approx(expected, rel=1e-3)
    assert_alike(last(parts), last(whole), 1e-4)
    scores = [json.loads(ctx.job_store.read(SCORES))["scores"] for ctx in (parts, whole)]
    assert scores[0].keys() == {"2", "3"}
    for step in scores[0]:
        assert scores[0][step] == pytest.approx(scores[1][step], abs=1e-3)
    (folder,) = (parts.store.root / "models/tests/small").iterdir()
    published = UNet2DConditionModel.from_pretrained(folder / "unet")
    card = json.loads((folder / "model.json").read_text())
    state = Checkpoints(parts).load(card["trainedSteps"])
    for name, tensor in published.state_dict().items():
        torch.testing.assert_close(tensor, state.ema[f"unet.{name}"].to(tensor.dtype))

    killed = divided(ready("killed", **FULL))
    codes, _ = train(killed, killed_at=2)
    assert codes[0] == ExitCode.PEER_LOST
    assert train(killed)[0] == [0, 0]
    assert final_hash(killed) == final_hash(parts)


@pytest.fixture
def any_precision() -> Iterator[None]:
    """accelerate holds one precision for the whole process, which is that of the first training in it."""
    AcceleratorState._reset_state()
    yield
    AcceleratorState._reset_state()


@pytest.mark.usefixtures("any_precision")
def test_adapters_divided_killed_and_resumed_whole(ready, train, desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """DoRA with a learned token in bf16; checkpoints are the same, so that the ranks may go on undivided."""
    alone, killed = ready("alone", **merged(LORA, {"training": {"batchSize": 4}})), ready("killed", **LORA)
    step, expected = loop.take_step, {}

    def told(session) -> list[loop.Trace]:
        traces = step(session)
        expected.update(losses_of(line.rstrip() for line in lines(traces)))
        return traces

    monkeypatch.setattr(loop, "take_step", told)
    loop.train(alone, desk(alone))
    codes, losses = train(divided(killed), killed_at=2)
    assert codes[0] == ExitCode.PEER_LOST
    codes, rest = train(killed)
    assert codes == [0, 0]
    assert losses | rest == pytest.approx(expected, rel=0.02)
    assert {key.split("|")[0] for key in rest} == {"2"}
