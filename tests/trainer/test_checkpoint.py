import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dreambooth_trainer.checkpoint import Checkpoints, State, read_state, write_state
from dreambooth_trainer.context import Context
from dreambooth_trainer.faults import CheckpointsCorrupt


def state(step: int, fingerprint: str = "sha256:f") -> State:
    weight = torch.full((3, 2), float(step))
    optimizer = {
        "state": {0: {"step": torch.tensor(float(step)), "exp_avg": weight * 2}},
        "param_groups": [{"lr": 0.1, "betas": (0.9, 0.999), "foreach": None, "params": [0]}],
    }
    return State(
        step,
        step * 8,
        fingerprint,
        1,
        {"unet.w": weight},
        optimizer,
        {"unet.w": weight + 1},
        {"scale": 2.0},
        [(step, {"loss": 0.5}, 1000)],
    )


@pytest.fixture
def ctx(context: Callable[..., Context], small_job, tmp_path: Path) -> Context:
    return context(small_job(), tmp_path)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def checkpoints(ctx: Context, said: list[str]) -> Checkpoints:
    return Checkpoints(ctx, said.append)


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    write_state(state(7), tmp_path / "s")
    back = read_state(tmp_path / "s")
    assert (back.step, back.samples, back.fingerprint, back.scaler) == (7, 56, "sha256:f", {"scale": 2.0})
    assert back.unsent == [(7, {"loss": 0.5}, 1000)]
    assert torch.equal(back.weights["unet.w"], torch.full((3, 2), 7.0))
    assert torch.equal(back.ema["unet.w"], torch.full((3, 2), 8.0))
    assert torch.equal(back.optimizer["state"][0]["exp_avg"], torch.full((3, 2), 14.0))
    assert back.optimizer["param_groups"] == state(7).optimizer["param_groups"]
    assert {p.suffix for p in (tmp_path / "s").iterdir()} == {".safetensors", ".json"}


def test_a_real_optimizer_goes_on_exactly(tmp_path: Path) -> None:
    def steps(parameter: torch.nn.Parameter, optimizer: torch.optim.Optimizer, count: int) -> None:
        for _ in range(count):
            parameter.grad = torch.sin(parameter.detach() * 3)
            optimizer.step()

    straight = torch.nn.Parameter(torch.arange(4.0))
    optimizer = torch.optim.AdamW([straight], lr=0.1)
    steps(straight, optimizer, 3)
    saved = State(3, 3, "f", 1, {"p": straight.detach().clone()}, optimizer.state_dict())
    write_state(saved, tmp_path / "s")
    steps(straight, optimizer, 3)

    back = read_state(tmp_path / "s")
    resumed = torch.nn.Parameter(back.weights["p"])
    second = torch.optim.AdamW([resumed], lr=0.1)
    second.load_state_dict(back.optimizer)
    steps(resumed, second, 3)
    assert torch.equal(straight, resumed)


def test_the_newest_wins_and_older_ones_are_pruned(checkpoints: Checkpoints) -> None:
    assert checkpoints.newest("sha256:f") is None
    for step in (2, 4, 6):
        committed = checkpoints.commit(state(step), keep=2)
    assert committed.step == 6
    assert committed.uri.endswith("checkpoints/step-000006")
    assert checkpoints.committed() == [4, 6]
    found = checkpoints.newest("sha256:f")
    assert found is not None
    assert found.step == 6


@pytest.mark.parametrize("harm", ["flipped byte", "manifest cut off", "file gone", "not a state"])
def test_a_spoilt_newest_one_is_skipped(checkpoints: Checkpoints, said: list[str], harm: str) -> None:
    for step in (2, 4):
        checkpoints.commit(state(step), keep=2)
    store = checkpoints.at(4)
    match harm:
        case "flipped byte":
            data = bytearray(store.read("weights.safetensors"))
            data[-1] ^= 1
            store.write("weights.safetensors", bytes(data))
        case "manifest cut off":
            store.write("MANIFEST.json", store.read("MANIFEST.json")[:-30])
        case "file gone":
            store.delete(["optimizer.safetensors"])
        case "not a state":
            store.write("MANIFEST.json", json.dumps({"files": {}}).encode())
    found = checkpoints.newest("sha256:f")
    assert found is not None
    assert found.step == 2
    assert "step 4 is skipped" in said[0]


def test_an_upload_that_was_cut_off_is_as_nothing(checkpoints: Checkpoints, said: list[str]) -> None:
    checkpoints.commit(state(2), keep=2)
    checkpoints.at(4).write("weights.safetensors", b"half")
    found = checkpoints.newest("sha256:f")
    assert found is not None
    assert found.step == 2
    assert said == []


def test_it_does_not_start_over_silently(checkpoints: Checkpoints, said: list[str]) -> None:
    checkpoints.commit(state(2, fingerprint="sha256:foreign"), keep=2)
    with pytest.raises(CheckpointsCorrupt, match="none of 1"):
        checkpoints.newest("sha256:f")
    assert "other settings" in said[0]


def test_what_is_good_is_not_pruned_for_what_is_spoilt(checkpoints: Checkpoints) -> None:
    """Training went back before a spoilt checkpoint; the next one is older than that one and must stay."""
    checkpoints.commit(state(2), keep=1)
    checkpoints.commit(state(6), keep=2)
    checkpoints.at(6).write("weights.safetensors", b"spoilt")
    checkpoints.commit(state(4), keep=1)
    found = checkpoints.newest("sha256:f")
    assert found is not None
    assert (found.step, checkpoints.committed()) == (4, [4, 6])
