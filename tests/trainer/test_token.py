from pathlib import Path

import pytest
import torch

from dreambooth_trainer import loop
from dreambooth_trainer.checkpoint import Checkpoints
from dreambooth_trainer.dataset import Group
from dreambooth_trainer.prepare import Inputs
from dreambooth_trainer.run import copy_artifact
from dreambooth_trainer.token import ROW, WEIGHTS
from dreambooth_trainer.trainee import build

FAMILIES = ["ready", "sdxl_ready"]


@pytest.fixture(params=FAMILIES, ids=["SD", "SDXL"])
def make(request: pytest.FixtureRequest):
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("text", [True, False], ids=["with text encoder", "without"])
def test_only_the_row_and_what_trains_get_gradients(make, text: bool) -> None:
    got = Inputs(make(method={"learnToken": True, "trainTextEncoder": text}, prior={"images": 2}))
    model = build(got.family, got.plan)
    batch, side = 2, got.plan.resolution // 2 if got.family.name == "sdxl" else 8
    noisy = torch.randn(batch, got.family.unet.config.in_channels, side, side)
    sizes = torch.tensor([[32, 32, 0, 0, 32, 32]] * batch)
    words = model.read([got.plan.instance_prompt, got.plan.class_prompt])
    group = Group([0, 1], noisy, torch.zeros_like(noisy), torch.tensor([5, 500]), [0, 1], sizes, None)
    (prediction,) = model([noisy], [group], words)
    prediction.sum().backward()
    with_gradient = {name for name, p in model.named_parameters() if p.grad is not None}
    assert with_gradient == set(model.trainable())
    rows = {name for name in with_gradient if name.endswith(ROW)}
    assert len(rows) == len(got.family.encoders)
    assert all("lora" in name for name in with_gradient - rows)
    assert any(name.startswith("text_encoder") for name in with_gradient - rows) == text


def test_begins_as_the_class_and_stands_for_the_identifier(ready) -> None:
    got = Inputs(ready(method={"learnToken": True}))
    before = got.family.encode_text(["a photo of robot robot", "a photo of a robot"])
    got.family.learn("sks", "robot")
    after = got.family.encode_text(["a photo of sks robot", "a photo of a robot"])
    torch.testing.assert_close(after, before)
    assert got.family.spoken("sks-1 asks sks, sks.") == "sks-1 asks <sks>, <sks>."


def test_published_as_a_textual_inversion_that_diffusers_loads(make, desk, tmp_path: Path) -> None:
    from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
    from safetensors.torch import load_file

    spec = {"learnToken": True, "trainTextEncoder": False}
    ctx = make(method=spec, prior={"images": 2}, training={"steps": 2, "ema": 0.5})
    result = loop.train(ctx, desk(ctx))
    copy_artifact(result.artifact, tmp_path / "artifact")
    rows = load_file(tmp_path / "artifact" / WEIGHTS)
    state = Checkpoints(ctx).load(2)
    kept = [value for name, value in sorted(state.ema.items()) if name.endswith(ROW)]
    assert len(kept) == len(rows)
    base = ctx.mirror.folder / "base"
    if len(rows) == 1:
        pipeline = StableDiffusionPipeline.from_pretrained(base, safety_checker=None)
        pipeline.load_textual_inversion(tmp_path / "artifact" / WEIGHTS)
        pairs = [("<sks>", pipeline.tokenizer, pipeline.text_encoder)]
    else:
        pipeline = StableDiffusionXLPipeline.from_pretrained(base, add_watermarker=False)
        pairs = [("clip_l", pipeline.tokenizer, pipeline.text_encoder)]
        pairs += [("clip_g", pipeline.tokenizer_2, pipeline.text_encoder_2)]
        for key, tokenizer, encoder in pairs:
            pipeline.load_textual_inversion(rows[key], token="<sks>", text_encoder=encoder, tokenizer=tokenizer)
    for (key, tokenizer, encoder), average in zip(pairs, kept, strict=True):
        loaded = encoder.get_input_embeddings().weight[tokenizer.convert_tokens_to_ids("<sks>")]
        # Published is the average, not the last value.
        torch.testing.assert_close(loaded, average)
        torch.testing.assert_close(rows[key][0], average)


def test_resumed_as_it_was(ready, desk, tmp_path: Path) -> None:
    from dataclasses import replace

    spec = {"method": {"learnToken": True}, "training": {"steps": 4}, "checkpoints": {"everySteps": 2, "keep": 5}}
    straight, cut = ready("straight", **spec), ready("cut", **spec)
    first = loop.train(straight, desk(straight))
    loop.train(cut, desk(cut))
    store = Checkpoints(cut).at(4)
    store.delete(list(store.keys()))
    again = loop.train(replace(cut, name=cut.name), desk(cut))
    assert again.artifact.digest == first.artifact.digest
