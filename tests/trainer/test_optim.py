import pytest
import torch

from dreambooth_api.parse import parse_job_file
from dreambooth_trainer.config import resolve
from dreambooth_trainer.faults import SpecFault
from dreambooth_trainer.optim import build_optimizer, rate_factor
from dreambooth_trainer.trainee import Trainee


@pytest.fixture
def plan(small_job):
    return lambda **training: resolve(parse_job_file(small_job(training=training)).spec, 32, "cpu")


def trainee() -> Trainee:
    return Trainee(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))


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


@pytest.mark.parametrize("name", ["AdamW", "Adafactor"])
def test_an_optimizer_trains_both_parts_at_their_own_rates(plan, name: str) -> None:
    model = trainee()
    before = [p.detach().clone() for p in model.parameters()]
    optimizer = build_optimizer(model, plan(optimizer=name, learningRate=0.1, textEncoderLearningRate=0.01))
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.01]
    model.text_encoder(model.unet(torch.ones(2, 4))).sum().backward()
    optimizer.step()
    assert all(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_a_package_that_is_not_installed_is_named(plan) -> None:
    with pytest.raises(SpecFault, match="prodigyopt"):
        build_optimizer(trainee(), plan(optimizer="Prodigy"))


def test_what_is_frozen_has_no_group(plan) -> None:
    model = trainee()
    model.text_encoder.requires_grad_(False)
    assert len(build_optimizer(model, plan()).param_groups) == 1
