from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from dreambooth_api.job import Lora
from dreambooth_trainer.faults import SpecFault
from dreambooth_trainer.lora import WEIGHTS, add_adapters, save_adapters
from dreambooth_trainer.stable_diffusion import StableDiffusion

CPU = torch.device("cpu")


LINEAR = ["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2"]
CONVOLUTIONS = [*LINEAR, "conv_in", "conv1", "conv2", "conv_shortcut", "proj_in", "time_emb_proj", "conv_out"]


@pytest.mark.parametrize("dora", [False, True], ids=["LoRA", "DoRA"])
@pytest.mark.parametrize("targets", [LINEAR, CONVOLUTIONS], ids=["linear", "convolutions"])
def test_diffusers_loads_what_was_trained_with_the_same_effect(
    examples: Path, tmp_path: Path, targets: list[str], dora: bool
) -> None:
    """Every number of the file counts: each is disturbed, and diffusers' own loader finds a place for it."""
    from diffusers import StableDiffusionPipeline

    torch.manual_seed(0)
    prompt = ["a photo of sks robot"]
    family = StableDiffusion(examples / "base", CPU)
    untrained = family.encode_text(prompt)
    add_adapters(family.unet, family.encoders, Lora(rank=4, alpha=16, dora=dora, targets=targets))
    with torch.no_grad():
        for part in (family.unet, family.text_encoder):
            for name, parameter in part.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(std=0.02)
                elif "lora_magnitude_vector" in name:
                    parameter.mul_(torch.empty_like(parameter).uniform_(0.9, 1.1))
    latents, steps = torch.randn(1, 8, 8, 8), torch.tensor([500])
    text = family.encode_text(prompt)
    with torch.no_grad():
        expected = family.unet(latents, steps, text).sample
    save_adapters(tmp_path, family.pipeline, family.unet, family.encoders)

    pipeline = StableDiffusionPipeline.from_pretrained(examples / "base")
    with torch.no_grad():
        plain = pipeline.unet(latents, steps, untrained).sample
    pipeline.load_lora_weights(tmp_path)
    with torch.no_grad():
        loaded = pipeline.text_encoder(family.token_ids(prompt))[0]
        drawn = pipeline.unet(latents, steps, loaded).sample
    assert not torch.allclose(untrained, text, atol=1e-3)
    assert not torch.allclose(plain, expected, atol=1e-1)
    torch.testing.assert_close(loaded, text, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(drawn, expected, atol=1e-4, rtol=1e-4)


def test_only_adapters_train(examples: Path) -> None:
    family = StableDiffusion(examples / "base", CPU)
    add_adapters(family.unet, {}, Lora(rank=4))
    trained = [name for name, p in family.unet.named_parameters() if p.requires_grad]
    assert trained
    assert all("lora" in name for name in trained)
    assert not any(p.requires_grad for p in family.text_encoder.parameters())


def test_the_file_states_its_settings(examples: Path, tmp_path: Path) -> None:
    family = StableDiffusion(examples / "base", CPU)
    add_adapters(family.unet, {}, Lora(rank=4, alpha=8))
    save_adapters(tmp_path, family.pipeline, family.unet, {})
    with safe_open(tmp_path / WEIGHTS, framework="pt") as file:
        assert '"unet.lora_alpha": 8' in file.metadata()["lora_adapter_metadata"]


def test_equal_adapters_are_equal_bytes_and_name_no_path(examples: Path, tmp_path: Path) -> None:
    family = StableDiffusion(examples / "base", CPU)
    add_adapters(family.unet, family.encoders, Lora(rank=4))
    written = set()
    for index in range(4):
        save_adapters(tmp_path / str(index), family.pipeline, family.unet, family.encoders)
        written.add((tmp_path / str(index) / WEIGHTS).read_bytes())
    assert len(written) == 1
    assert str(examples).encode() not in written.pop()


def test_targets_that_do_not_exist(examples: Path) -> None:
    family = StableDiffusion(examples / "base", CPU)
    with pytest.raises(SpecFault, match=r"method\.lora\.targets"):
        add_adapters(family.unet, {}, Lora(targets=["no_such_module"]))
