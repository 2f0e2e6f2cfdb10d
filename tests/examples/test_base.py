"""The committed base is small, loads as a Stable Diffusion, and draws what it is asked to."""

import json

import judge
import numpy as np
import pytest
import torch
import world
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline

MEGABYTE = 1024 * 1024


def size(folder) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


@pytest.fixture(scope="module")
def pipeline(examples):
    pipeline = StableDiffusionPipeline.from_pretrained(examples / "base")
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_what_is_committed_is_small_and_safetensors_only(examples):
    assert size(examples / "base") <= 25 * MEGABYTE
    assert size(examples / "encoder") + size(examples / "encoder-dino") <= 6 * MEGABYTE
    weights = [f for f in examples.rglob("*") if f.suffix in {".bin", ".pt", ".pth", ".ckpt", ".safetensors"}]
    assert {file.suffix for file in weights} == {".safetensors"}


def test_the_pipeline_is_the_one_diffusers_knows(pipeline, examples):
    assert isinstance(pipeline.scheduler, DPMSolverMultistepScheduler)
    assert pipeline.safety_checker is None
    assert pipeline.tokenizer.model_max_length == pipeline.text_encoder.config.max_position_embeddings
    assert len(pipeline.tokenizer("sks").input_ids) == 3
    index = json.loads((examples / "base" / "model_index.json").read_text())
    assert index["_class_name"] == "StableDiffusionPipeline"


def test_the_vae_gives_a_held_out_subject_back(pipeline):
    drawn = [picture for picture, _ in world.portraits(world.HELD_OUT["robot"], 6, 11)]
    images = torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.inference_mode():
        output = pipeline.vae.decode(pipeline.vae.encode(images).latent_dist.mean).sample.clamp(-1, 1)
    assert 10 * torch.log10(4 / (output - images).square().mean()) > 29  # dB


def test_the_judge_is_no_flatterer():
    """It names clean pictures rightly, and does not find a class and scene in empty or wrong ones."""
    ruler = judge.load_judge()
    asked = judge.requests(48)
    rng_places = world.Place(3, 2, False)
    drawn = [world.draw(world.Individual(kind, "pink", "teal", "plain"), scene, rng_places) for kind, scene in asked]
    images = torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2) / 127.5 - 1
    assert judge.accuracy(asked, ruler.names(images)).accuracy_both == 1.0
    shifted = asked[1:] + asked[:1]
    assert judge.accuracy(shifted, ruler.names(images)).accuracy_both == 0.0


def test_it_draws_the_class_in_the_scene(pipeline):
    """48 pictures, one a pair; the README's figure is of 200."""
    asked = judge.requests(48)
    drawn = judge.draw(pipeline, asked, steps=15, guidance=4.0, seed=3)
    found = judge.accuracy(asked, judge.judged(judge.load_judge(), drawn))
    assert found.accuracy_both >= 0.85, found
    assert found.accuracy_scene >= 0.9, found


def test_its_individuals_vary_and_a_seed_repeats(pipeline):
    asked = [("robot", "in the snow")] * 6
    first, again = (judge.draw(pipeline, asked, steps=10, guidance=4.0, seed=5) for _ in range(2))
    pixels = [np.asarray(picture).astype(int) for picture in first]
    assert all(np.array_equal(a, np.asarray(b)) for a, b in zip(pixels, again, strict=True))
    apart = [np.abs(a - b).mean() for i, a in enumerate(pixels) for b in pixels[:i]]
    assert np.mean(apart) > 8  # of 255: mostly the robots' own colours and places
