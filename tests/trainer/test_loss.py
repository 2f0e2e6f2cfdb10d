import pytest
import torch

from dreambooth_trainer.loss import dreambooth_loss, min_snr_weights, sample_errors


def batch(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 2, 3, 3, generator=generator), torch.randn(count, 2, 3, 3, generator=generator)


@pytest.mark.parametrize("size", [1, 4])
def test_instance_plus_weighted_prior(size: int) -> None:
    prediction, target = batch(2 * size)
    squares = (prediction - target) ** 2
    expected = squares[:size].mean() + 0.3 * squares[size:].mean()
    loss = dreambooth_loss(sample_errors(prediction, target), subjects=size, prior_weight=0.3)
    torch.testing.assert_close(loss.total, expected)
    assert loss.per_sample.shape == (2 * size,)


@pytest.mark.parametrize("size", [1, 4])
def test_min_snr_weighs_each_part_by_its_own_samples(size: int) -> None:
    """diffusers multiplied 2B weights with B losses: an error for B > 1, a silent broadcast for B = 1."""
    prediction, target = batch(2 * size)
    weights = torch.arange(1.0, 2 * size + 1)
    each = ((prediction - target) ** 2).mean((1, 2, 3))
    expected = (each[:size] * weights[:size]).mean() + 0.5 * (each[size:] * weights[size:]).mean()
    loss = dreambooth_loss(sample_errors(prediction, target), subjects=size, prior_weight=0.5, weights=weights)
    torch.testing.assert_close(loss.total, expected)


def test_without_prior_only_the_subject_counts() -> None:
    prediction, target = batch(3)
    loss = dreambooth_loss(sample_errors(prediction, target), subjects=3, prior_weight=7.0)
    torch.testing.assert_close(loss.total, ((prediction - target) ** 2).mean())


def test_computed_in_float32() -> None:
    prediction, target = batch(2)
    half = dreambooth_loss(sample_errors(prediction.bfloat16(), target), subjects=2, prior_weight=1.0)
    assert half.total.dtype == torch.float32


def test_min_snr_weights_as_in_the_paper() -> None:
    alphas = torch.tensor([0.99, 0.5, 0.1])
    steps = torch.tensor([0, 1, 2])
    snr = alphas / (1 - alphas)  # 99, 1, 0.111
    epsilon = min_snr_weights(alphas, steps, 5.0, "epsilon")
    torch.testing.assert_close(epsilon, torch.tensor([5 / 99, 1.0, 1.0]))
    v = min_snr_weights(alphas, steps, 5.0, "v_prediction")
    torch.testing.assert_close(v, torch.stack([snr[0].clamp(max=5), snr[1], snr[2]]) / (snr + 1))
    with pytest.raises(ValueError, match="sample"):
        min_snr_weights(alphas, steps, 5.0, "sample")


def test_zero_terminal_snr_gives_no_nan() -> None:
    weights = min_snr_weights(torch.tensor([0.5, 0.0]), torch.tensor([0, 1]), 5.0, "epsilon")
    assert torch.isfinite(weights).all()
