import copy
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from dreambooth_api.parse import parse_job_file
from dreambooth_trainer.checkpoint import State, read_state, write_state
from dreambooth_trainer.config import resolve
from dreambooth_trainer.faults import SpecFault
from dreambooth_trainer.optim import build_optimizer, rate_factor, set_rates
from dreambooth_trainer.trainee import Trainee


@pytest.fixture
def plan(small_job):
    return lambda **training: resolve(parse_job_file(small_job(training=training)).spec, 32, "cpu")


def trainee() -> Trainee:
    return Trainee(SimpleNamespace(unet=torch.nn.Linear(64, 64)), {"text_encoder": torch.nn.Linear(64, 64)})


@pytest.mark.parametrize(
    ("kind", "factors"),
    [
        ("constant", {0: 1, 9: 1}),
        ("constant_with_warmup", {0: 0.25, 3: 1, 9: 1}),
        ("linear", {0: 0.25, 4: 1, 7: 0.5}),
        ("cosine", {0: 0.25, 4: 1, 7: 0.5, 10: 0}),
    ],
)
def test_rate_factor(kind: str, factors: dict[int, float]) -> None:
    warmup = 0 if kind == "constant" else 4
    for step, factor in factors.items():
        assert rate_factor(kind, step, 10, warmup) == pytest.approx(factor)


@pytest.mark.parametrize("name", ["AdamW", "AdamW8bit", "Adafactor"])
def test_an_optimizer_trains_both_parts_at_their_own_rates(plan, name: str) -> None:
    model = trainee()
    before = [p.detach().clone() for p in model.parameters()]
    optimizer = build_optimizer(model, plan(optimizer=name, learningRate=0.1, textEncoderLearningRate=0.01))
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.01]
    model.text_encoder(model.unet(torch.ones(2, 64))).sum().backward()
    optimizer.step()
    assert all(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def steps_of(model: Trainee, optimizer: torch.optim.Optimizer, numbers: range) -> None:
    for number in numbers:
        torch.manual_seed(number)
        optimizer.zero_grad()
        model.get_submodule("text_encoder")(model.unet(torch.randn(8, 64))).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("name", ["AdamW", "AdamW8bit", "Adafactor", "Prodigy"])
def test_resumed_from_a_checkpoint_is_equal_to_uninterrupted(plan, tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    straight = trainee()
    cut = copy.deepcopy(straight)
    settled = plan(optimizer=name)
    steps_of(straight, build_optimizer(straight, settled), range(6))
    optimizer = build_optimizer(cut, settled)
    steps_of(cut, optimizer, range(3))
    write_state(State(3, 3, "f", 1, dict(cut.trainable()), optimizer.state_dict()), tmp_path / "state")
    state, resumed = read_state(tmp_path / "state"), trainee()
    with torch.no_grad():
        for parameter_name, parameter in resumed.trainable().items():
            parameter.copy_(state.weights[parameter_name])
    optimizer = build_optimizer(resumed, settled)
    optimizer.load_state_dict(state.optimizer)
    steps_of(resumed, optimizer, range(3, 6))
    assert resumed.digest() == straight.digest() != cut.digest()


def test_a_package_that_is_not_installed_is_named(plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prodigyopt", None)
    with pytest.raises(SpecFault, match="needs the package prodigyopt"):
        build_optimizer(trainee(), plan(optimizer="Prodigy"))


def test_adamw8bit_keeps_its_averages_in_8_bits(plan) -> None:
    model = trainee()
    optimizer = build_optimizer(model, plan(optimizer="AdamW8bit"))
    steps_of(model, optimizer, range(1))
    states = optimizer.state_dict()["state"].values()
    kept = [state["__bnb_optimizer_quant_state__"]["state1"].dtype for state in states]
    assert sorted(map(str, kept)) == ["torch.float32"] * 2 + ["torch.uint8"] * 2


def test_a_learned_token_has_a_rate_of_its_own(plan) -> None:
    model = trainee()
    model.get_submodule("text_encoder").learned = torch.nn.Parameter(torch.zeros(4))
    settled = plan(learningRate=0.1, textEncoderLearningRate=0.01, tokenLearningRate=0.5)
    assert [len(g["params"]) for g in build_optimizer(model, settled).param_groups] == [2, 2, 1]
    optimizer = build_optimizer(model, settled)
    set_rates(optimizer, 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [0.05, 0.005, 0.25]


def test_what_is_frozen_has_no_group(plan) -> None:
    model = trainee()
    model.text_encoder.requires_grad_(False)
    assert len(build_optimizer(model, plan()).param_groups) == 1


@pytest.mark.parametrize(("name", "size"), [("AdamW", 8), ("Adafactor", 0.03), ("Prodigy", 16)])
def test_a_state_takes_as_many_bytes_per_parameter_as_documented(plan, name: str, size: float) -> None:
    model = Trainee(SimpleNamespace(unet=torch.nn.Linear(256, 256, bias=False)), {})
    optimizer = build_optimizer(model, plan(optimizer=name))
    model.unet(torch.ones(2, 256)).sum().backward()
    optimizer.step()
    kept = [t for state in optimizer.state_dict()["state"].values() for t in state.values() if torch.is_tensor(t)]
    assert sum(t.numel() * t.element_size() for t in kept) / 256**2 == pytest.approx(size, abs=0.01)
