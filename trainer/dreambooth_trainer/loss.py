"""DreamBooth's loss, pure: the subject's part plus λ times the prior's (Ruiz et al., arXiv 2208.12242, eq. 2)."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Loss:
    """`total` is what is minimised; `per_sample` (N,) is what each sample contributed before λ, for reports."""

    total: Tensor
    per_sample: Tensor


def min_snr_weights(alphas_cumprod: Tensor, timesteps: Tensor, gamma: float, prediction_type: str) -> Tensor:
    """Weights (N,) of min-SNR-γ (Hang et al., arXiv 2303.09556, section 3.4).

    For `epsilon` min(SNR, γ)/SNR, for `v_prediction` min(SNR, γ)/(SNR + 1).
    """
    alphas = alphas_cumprod.to(timesteps.device, torch.float32)[timesteps]
    snr = alphas / (1 - alphas)
    clipped = snr.clamp(max=gamma)
    if prediction_type == "epsilon":
        # At zero terminal SNR the quotient is 0/0, whose limit is 1.
        return torch.where(snr > 0, clipped / snr, torch.ones_like(snr))
    if prediction_type == "v_prediction":
        return clipped / (snr + 1)
    raise ValueError(f"no min-SNR weights for prediction type {prediction_type!r}")


def sample_errors(prediction: Tensor, target: Tensor, masks: Tensor | None = None) -> Tensor:
    """Mean square error of each sample (N,) of (N, C, h, w), in float32; `masks` (N, h, w), of mean 1, weigh places."""
    squares = (prediction.float() - target.float()).square()
    if masks is not None:
        squares = squares * masks.unsqueeze(1)
    return squares.flatten(1).mean(1)


def dreambooth_loss(errors: Tensor, *, subjects: int, prior_weight: float, weights: Tensor | None = None) -> Loss:
    """The loss of a batch by its samples' `errors` (N,): first the subject's `subjects`, then those of the class.

    `weights` (N,) are per sample, over both parts: each part is weighted with its own samples' weights before it is
    averaged (diffusers multiplied 2B weights with B losses).
    """
    per_sample = errors
    if weights is not None:
        per_sample = per_sample * weights
    total = per_sample[:subjects].mean()
    if len(per_sample) > subjects:
        total = total + prior_weight * per_sample[subjects:].mean()
    return Loss(total, per_sample.detach())
