"""An SDXL artifact: drawn as diffusers draws it, guidance in one batch; learned tokens of both families."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from server_kit import write_card, write_manifest

from dreambooth_api.job import MethodType
from dreambooth_api.names import TOKEN_WEIGHTS
from dreambooth_server.artifacts import LORA_WEIGHTS, Artifact, fetch_artifact
from dreambooth_server.drawing import Drawing
from dreambooth_server.settings import Places, SubjectSource


def save_sdxl_lora(folder: Path, base: Path) -> None:
    import torch
    from diffusers import StableDiffusionXLPipeline
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    torch.manual_seed(1)
    pipeline: Any = StableDiffusionXLPipeline.from_pretrained(str(base), add_watermarker=False)
    for part, targets in (("unet", ["to_q", "to_v"]), ("text_encoder", ["q_proj"]), ("text_encoder_2", ["q_proj"])):
        getattr(pipeline, part).add_adapter(
            LoraConfig(r=4, lora_alpha=4, target_modules=targets, init_lora_weights=False)
        )
    layers = {
        f"{n}_lora_layers": get_peft_model_state_dict(getattr(pipeline, n)) for n in ("text_encoder", "text_encoder_2")
    }
    unet = get_peft_model_state_dict(pipeline.unet)
    StableDiffusionXLPipeline.save_lora_weights(str(folder), unet_lora_layers=unet, **layers)


@pytest.fixture(scope="module")
def subject(sdxl_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """LoRA on all three networks, and a learned token."""
    import torch
    from safetensors.torch import save_file

    folder, work = tmp_path_factory.mktemp("xl"), tmp_path_factory.mktemp("work")
    save_sdxl_lora(folder, sdxl_base)
    torch.manual_seed(2)
    save_file({"clip_l": torch.randn(1, 16), "clip_g": torch.randn(1, 24)}, folder / TOKEN_WEIGHTS)
    write_card(folder, sdxl_base, family="sdxl", learned_token=True)
    write_manifest(folder)
    return fetch_artifact(SubjectSource(str(folder)), Places(store=work / "none", work=work))


@pytest.fixture(scope="module")
def studio(subject: Artifact, sdxl_base: Path) -> Any:
    from dreambooth_server.studio import open_studio

    return open_studio(sdxl_base, {"rusty": subject})


def drawing(model: str, seed: int, prompt: str = "a photo of sks robot", negative: str = "") -> Drawing:
    return Drawing(model, prompt, negative, seed, 32, 32, 3, 4.0)


def theirs(base: Path, wanted: Drawing, subject: Artifact | None) -> Any:
    """What diffusers' own pipeline makes of it."""
    import torch
    from diffusers import StableDiffusionXLPipeline
    from safetensors.torch import load_file

    pipeline: Any = StableDiffusionXLPipeline.from_pretrained(str(base), add_watermarker=False)
    pipeline.set_progress_bar_config(disable=True)
    prompt = wanted.prompt
    if subject:
        pipeline.load_lora_weights(str(subject.folder), weight_name=LORA_WEIGHTS)
        rows = load_file(subject.folder / TOKEN_WEIGHTS)
        pairs = ((pipeline.tokenizer, pipeline.text_encoder, "clip_l"),)
        pairs += ((pipeline.tokenizer_2, pipeline.text_encoder_2, "clip_g"),)
        for tokenizer, encoder, key in pairs:
            pipeline.load_textual_inversion(rows[key], token="<sks>", text_encoder=encoder, tokenizer=tokenizer)
            # diffusers leaves the pooled state of old configs at the new token; ours stays at the end.
            for module in encoder.modules():
                if getattr(module, "eos_token_id", None) == 2:
                    module.eos_token_id = tokenizer.eos_token_id
        prompt = prompt.replace("sks", "<sks>")
    made = pipeline(
        prompt, negative_prompt=wanted.negative_prompt or None, num_inference_steps=3, guidance_scale=4.0, height=32,
        width=32, generator=torch.Generator().manual_seed(wanted.seed),
    ).images[0]  # fmt: skip
    return np.asarray(made, int)


@pytest.mark.parametrize("negative", ["", "a photo of a cat"])
@pytest.mark.parametrize("model", ["rusty", "base"])
def test_it_draws_what_diffusers_draws(
    studio: Any, subject: Artifact, sdxl_base: Path, model: str, negative: str
) -> None:
    wanted = drawing(model, 5, negative=negative)
    ours = np.asarray(studio.draw([wanted])[0], int)
    assert np.abs(ours - theirs(sdxl_base, wanted, subject if model == "rusty" else None)).max() <= 1


def test_guidance_goes_through_the_unet_in_one_batch(studio: Any) -> None:
    unet = studio._pipeline.unet
    sizes: list[int] = []
    hook = unet.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    studio.draw([drawing("rusty", 2, negative="a cat")])
    hook.remove()
    assert sizes == [2] * 3


def test_a_learned_token_is_its_subjects_alone(base: Path, tmp_path: Path) -> None:
    """Two subjects of one identifier: each draws with its own row, and the base as if there were none."""
    import torch
    from safetensors.torch import save_file

    from dreambooth_server.studio import open_studio

    found = {}
    for seed, name in enumerate(("one", "two")):
        folder = tmp_path / name
        folder.mkdir()
        for part in ("unet",):
            (folder / part).symlink_to(base / part)
        torch.manual_seed(seed)
        save_file({"<sks>": torch.randn(1, 96)}, folder / TOKEN_WEIGHTS)
        card = write_card(folder, base, name=name, method=MethodType.FULL, lora=None, learned_token=True)
        found[name] = Artifact(name, folder, f"sha256:{seed:064x}", card)
    studio, plain = open_studio(base, found), open_studio(base, {})

    def draw(of: Any, model: str, prompt: str) -> bytes:
        return of.draw([drawing(model, 3, prompt)])[0].tobytes()

    assert len({draw(studio, name, "a photo of sks robot") for name in ("one", "two", "base")}) == 3
    assert len({draw(studio, name, "a photo of a robot") for name in ("one", "two", "base")}) == 1
    assert draw(studio, "base", "a photo of sks robot") == draw(plain, "base", "a photo of sks robot")
