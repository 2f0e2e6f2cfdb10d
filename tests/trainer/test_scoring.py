from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dreambooth_api.job import Gate
from dreambooth_trainer import scoring
from dreambooth_trainer.pictures import load_pictures
from dreambooth_trainer.scoring import Drawn


@pytest.fixture(scope="module")
def encoders(examples: Path):
    return scoring.encoders({"clip": examples / "encoder", "dino": examples / "encoder-dino"})


@pytest.fixture(scope="module")
def robots(examples: Path) -> list[Image.Image]:
    return [p.image for p in load_pictures(examples / "robot" / "images", 32, 0).train]


@pytest.fixture(scope="module")
def cats(examples: Path) -> list[Image.Image]:
    return [p.image for p in load_pictures(examples / "subjects" / "cat", 32, 0).train]


def test_scores_agree_with_an_independent_computation(encoders, robots, cats, examples: Path) -> None:
    from transformers import CLIPModel, Dinov2Model

    drawn = Drawn(robots[:2], ["a photo of a robot", "a photo of a cat"], cats)
    scores = scoring.measure(drawn, robots[3:], *encoders)

    def pixels(images):
        stacked = np.stack([np.asarray(i) / 127.5 - 1 for i in images])
        return torch.from_numpy(stacked).permute(0, 3, 1, 2).float()

    def unit(x):
        return (x / x.norm(dim=1, keepdim=True)).double().numpy()

    with torch.no_grad():
        dino = Dinov2Model.from_pretrained(examples / "encoder-dino", dtype=torch.float32).eval()
        clip = CLIPModel.from_pretrained(examples / "encoder", dtype=torch.float32).eval()
        d = [unit(dino(pixels(x)).last_hidden_state[:, 0]) for x in (robots[:2], robots[3:], cats)]
        c = [unit(clip.visual_projection(clip.vision_model(pixels(x)).pooler_output)) for x in (robots[:2], robots[3:])]
    assert scores["dino"] == pytest.approx(np.mean(d[0] @ d[1].T), abs=1e-4)
    assert scores["clip_i"] == pytest.approx(np.mean(c[0] @ c[1].T), abs=1e-4)
    assert scores["pres"] == pytest.approx(np.mean(d[2] @ d[1].T), abs=1e-4)
    pairs = [1 - d[2][i] @ d[2][j] for i in range(5) for j in range(5) if i != j]
    assert scores["div"] == pytest.approx(np.mean(pairs), abs=1e-4)


def test_scores_tell_the_subject_from_another(encoders, robots, cats) -> None:
    def of(images):
        return scoring.measure(Drawn(images, ["a photo of a robot"] * len(images), cats), robots[3:], *encoders)

    alike, other = of(robots[:3]), of(cats[:3])
    assert alike["dino"] > other["dino"] + 0.2
    assert alike["clip_i"] > other["clip_i"] + 0.2
    assert alike["clip_t"] > other["clip_t"]


def test_what_cannot_be_measured_is_left_out(encoders, robots) -> None:
    clip, _ = encoders
    drawn = Drawn(robots, ["x"] * 5, robots)
    assert scoring.measure(drawn, robots, None, None) == {}
    assert set(scoring.measure(drawn, [], clip, None)) == {"clip_t", "div"}


def test_gate() -> None:
    measures = {"clip_i": 0.7, "pres": 0.6, "div": 0.2}
    assert scoring.below_gate(Gate(clip_i=0.7, pres=0.6, div=0.2), measures) is None
    assert scoring.below_gate(Gate(clip_i=0.75), measures) == "clipI 0.700 is 0.050 below 0.75"
    missed = scoring.below_gate(Gate(pres=0.5, dino=0.1, div=0.3), measures)
    assert missed is not None
    assert "pres 0.600 is 0.100 above 0.5" in missed
    assert "dino was not measured" in missed
    assert "div 0.200 is 0.100 below 0.3" in missed


def test_scores_are_shown_beside_the_base() -> None:
    shown = scoring.as_scores({"clip_i": 0.70049, "div": 0.3}, {"clip_i": 0.2, "dino": 0.1, "div": 0.5})
    assert shown.to_dict() == {"clipI": "0.700", "div": "0.300", "baseClipI": "0.200", "baseDino": "0.100"}
