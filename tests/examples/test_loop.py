"""Training stops when its time is up, goes on where it was, and hands out averaged weights."""

import loop
import pytest
import torch
from torch import nn


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Linear(4, 1)


def run(model, plan, exported):
    data = torch.randn(64, 4)
    target = data.sum(1, keepdim=True)
    loop.train(
        model, plan, lambda: (model(data) - target).square().mean(), lambda: exported.append(model.weight.clone())
    )


def test_a_run_goes_on_from_its_state(model, tmp_path):
    exported = []
    run(model, loop.Plan(tmp_path, minutes=0.5 / 60, learning_rate=0.05), exported)
    first = torch.load(tmp_path / "state.pt", weights_only=True)
    fresh = nn.Linear(4, 1)
    run(fresh, loop.Plan(tmp_path, minutes=1.0 / 60, learning_rate=0.05), exported)
    second = torch.load(tmp_path / "state.pt", weights_only=True)
    assert second["step"] > first["step"] > 0
    assert 0.5 <= first["seconds"] < 1.0 <= second["seconds"]
    assert torch.allclose(exported[-1], torch.ones(1, 4), atol=0.05)


def test_a_finished_run_only_exports_again(model, tmp_path):
    plan, exported = loop.Plan(tmp_path, minutes=0.2 / 60, learning_rate=0.05), []
    run(model, plan, exported)
    run(nn.Linear(4, 1), plan, exported)
    assert torch.equal(exported[0], exported[1])


def test_export_sees_the_average_and_training_its_own_weights(model, tmp_path):
    trained = loop.Run(model, loop.Plan(tmp_path, minutes=1, learning_rate=0.05))
    for _ in range(5):
        trained.update(model(torch.ones(1, 4)).square().sum())
    own, seen = model.weight.detach().clone(), []
    loop.finish(trained, lambda: seen.append(model.weight.clone()))
    assert not torch.equal(own, seen[0])
    assert torch.equal(own, model.weight)


def test_the_rate_warms_up_holds_and_falls(tmp_path):
    plan = loop.Plan(tmp_path, minutes=1, learning_rate=1.0, hold=0.4, floor=0.1, warmup_steps=10)
    assert plan.rate(0, 0.0) == pytest.approx(0.1)
    assert plan.rate(100, 0.4) == pytest.approx(1.0)
    assert 0.1 < plan.rate(100, 0.7) < 1.0
    assert plan.rate(100, 1.0) == pytest.approx(0.1)
