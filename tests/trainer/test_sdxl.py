from pathlib import Path

import numpy as np
import pytest
import torch

from dreambooth_trainer import loop
from dreambooth_trainer.family import open_family
from dreambooth_trainer.run import copy_artifact
from dreambooth_trainer.sdxl import StableDiffusionXL

CPU = torch.device("cpu")
PROMPTS = ["a photo of a robot", "a photo of sks robot"]


@pytest.fixture(scope="module")
def family(sdxl_base: Path) -> StableDiffusionXL:
    return open_family(sdxl_base, CPU)


def test_conditioning_is_what_the_pipeline_computes(family, sdxl_base: Path) -> None:
    from diffusers import StableDiffusionXLPipeline

    pipeline = StableDiffusionXLPipeline.from_pretrained(sdxl_base, add_watermarker=False)
    states, _, pooled, _ = pipeline.encode_prompt(PROMPTS, do_classifier_free_guidance=False)
    words = family.encode_text(PROMPTS)
    torch.testing.assert_close(words[:, :-1], states)
    torch.testing.assert_close(words[:, -1, :24], pooled)
    assert not words[:, -1, 24:].any()


def test_the_unet_gets_pooled_words_and_sizes(family) -> None:
    noisy, steps, words = torch.randn(1, 4, 16, 16), torch.tensor([500]), family.encode_text(PROMPTS[:1])
    sizes = torch.tensor([[32, 32, 0, 0, 32, 32]])
    with torch.no_grad():
        plain = family.predict(family.unet, noisy, steps, words, sizes)
        other_size = family.predict(family.unet, noisy, steps, words, sizes * 4)
        pooled = words.clone()
        pooled[:, -1] += 1
        other_words = family.predict(family.unet, noisy, steps, pooled, sizes)
    assert not torch.allclose(plain, other_size)
    assert not torch.allclose(plain, other_words)


def test_the_vae_never_computes_in_half_precision(family) -> None:
    """The stock VAE of SDXL overflows in fp16: black pictures."""
    seen = []
    hook = family.vae.decoder.conv_out.register_forward_hook(lambda *args: seen.append(args[-1].dtype))
    family.autocast = torch.bfloat16
    try:
        family.draw(PROMPTS, [1, 2], steps=1, guidance=2.0, resolution=32)
    finally:
        family.autocast = None
        hook.remove()
    assert seen == [torch.float32]


@pytest.mark.parametrize("text", [True, False], ids=["with text encoders", "U-Net only"])
@pytest.mark.parametrize("method", ["LoRA", "Full"])
def test_trains_and_publishes_what_diffusers_loads(sdxl_ready, desk, tmp_path: Path, method: str, text: bool) -> None:
    from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel

    ctx = sdxl_ready(method={"type": method, "trainTextEncoder": text}, prior={"images": 2}, training={"steps": 2})
    result = loop.train(ctx, desk(ctx))
    copy_artifact(result.artifact, tmp_path / "artifact")
    base = ctx.mirror.folder / "base"
    names = {p.name for p in (tmp_path / "artifact").iterdir()} - {"MANIFEST.json", "model.json"}
    if method == "Full":
        assert names == {"unet", "text_encoder", "text_encoder_2"} if text else {"unet"}
        trained = UNet2DConditionModel.from_pretrained(tmp_path / "artifact" / "unet").state_dict()
        before = UNet2DConditionModel.from_pretrained(base / "unet").state_dict()
        assert any(not torch.equal(trained[key], before[key]) for key in before)
        return
    assert names == {"pytorch_lora_weights.safetensors"}
    pipeline = StableDiffusionXLPipeline.from_pretrained(base, add_watermarker=False)
    pipeline.set_progress_bar_config(disable=True)
    settings = {"num_inference_steps": 2, "height": 32, "width": 32, "output_type": "np"}
    draw = lambda: pipeline(PROMPTS[1], generator=torch.Generator().manual_seed(0), **settings).images  # noqa: E731
    plain = draw()
    pipeline.load_lora_weights(tmp_path / "artifact")
    adapted = pipeline.get_list_adapters()
    assert set(adapted) == ({"unet", "text_encoder", "text_encoder_2"} if text else {"unet"})
    assert np.isfinite(draw()).all()
    assert not np.array_equal(draw(), plain)
