import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from dreambooth_trainer.family import batch_for
from dreambooth_trainer.faults import BaseModelInvalid, SpecFault
from dreambooth_trainer.stable_diffusion import StableDiffusion

CPU = torch.device("cpu")
SETTINGS = {"steps": 2, "guidance": 3.0, "resolution": 32}


@pytest.fixture(scope="module")
def family(examples: Path) -> StableDiffusion:
    return StableDiffusion(examples / "base", CPU)


def test_a_drawing_depends_on_its_seed_and_not_on_its_batch(family: StableDiffusion) -> None:
    prompts = ["a photo of a robot", "a photo of a cat"]
    both = family.draw(prompts, [5, 6], **SETTINGS)
    alone = family.draw(prompts[1:], [6], **SETTINGS)
    other = family.draw(prompts[1:], [7], **SETTINGS)
    # A bit may round otherwise in another batch; another seed is another picture.
    assert np.abs(np.asarray(both[1], int) - np.asarray(alone[0], int)).max() <= 2
    assert np.abs(np.asarray(both[1], int) - np.asarray(other[0], int)).max() > 20


def test_velocity_and_noise_targets(family: StableDiffusion, examples: Path, tmp_path: Path) -> None:
    latents, noise = torch.randn(2, 8, 8, 8), torch.randn(2, 8, 8, 8)
    steps = torch.tensor([10, 900])
    alphas = family.schedule.alphas_cumprod[steps].view(2, 1, 1, 1)
    assert family.prediction_type == "v_prediction"
    torch.testing.assert_close(
        family.target(latents, noise, steps), alphas.sqrt() * noise - (1 - alphas).sqrt() * latents
    )
    torch.testing.assert_close(
        family.add_noise(latents, noise, steps), alphas.sqrt() * latents + (1 - alphas).sqrt() * noise
    )
    epsilon = StableDiffusion(with_prediction(examples / "base", tmp_path / "base", "epsilon"), CPU)
    assert epsilon.target(latents, noise, steps) is noise
    with pytest.raises(BaseModelInvalid, match="prediction type"):
        StableDiffusion(with_prediction(examples / "base", tmp_path / "other", "sample"), CPU)


def with_prediction(base: Path, target: Path, kind: str) -> Path:
    shutil.copytree(base, target)
    path = target / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"prediction_type": kind}))
    return target


def test_weights_that_are_cut_off(examples: Path, tmp_path: Path) -> None:
    shutil.copytree(examples / "base", tmp_path / "base")
    weights = tmp_path / "base" / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(BaseModelInvalid, match="cannot be loaded"):
        StableDiffusion(tmp_path / "base", CPU).load()


def test_words_that_the_text_encoder_cannot_see(family: StableDiffusion) -> None:
    family.check_words("a photo of sks robot", "sks")
    with pytest.raises(SpecFault, match=r"subject\.prompt"):
        family.check_words("a " * 40 + "sks", "sks")


def test_latents_are_scaled_posteriors(family: StableDiffusion, examples: Path) -> None:
    from dreambooth_trainer.pictures import load_pictures

    pictures = [p.image for p in load_pictures(examples / "robot" / "images", 32, 0).train]
    mean, deviation = family.encode_latents(pictures, batch=2)
    assert mean.shape == deviation.shape == (5, 8, 8, 8)
    assert (deviation > 0).all()
    back = family.vae.decode(mean / family.vae.config.scaling_factor).sample.clamp(-1, 1)
    original = torch.stack([torch.from_numpy(np.array(p)).permute(2, 0, 1) / 127.5 - 1 for p in pictures])
    assert (back - original).abs().mean() < 0.25


@pytest.mark.parametrize(("resolution", "expected"), [(32, 32), (512, 4), (768, 1), (1024, 1), (2048, 1)])
def test_batches_fit_the_size(resolution: int, expected: int) -> None:
    assert batch_for(resolution) == expected
