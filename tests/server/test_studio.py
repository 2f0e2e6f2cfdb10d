"""Several subjects on one base: each draws as if it were alone."""

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from server_kit import Made, write_card, write_lora, write_manifest

from dreambooth_api.names import TOKEN_WEIGHTS
from dreambooth_server.artifacts import LORA_WEIGHTS, fetch_artifact
from dreambooth_server.drawing import Drawing, Refused, Sampler
from dreambooth_server.faults import LoadFault
from dreambooth_server.service import Service
from dreambooth_server.settings import Places, SubjectSource

MODELS = ("rusty", "tabby", "boxy", "base")


def drawing(model: str, seed: int = 7) -> Drawing:
    return Drawing(model, "a photo of sks robot in the snow", "", seed, 32, 32, 4, 4.0)


def as_array(picture: Any) -> Any:
    return np.asarray(picture, int)


def test_every_model_draws_something_else_and_switching_leaves_no_trace(service: Service) -> None:
    first = {model: service.engine.draw([drawing(model)])[0] for model in MODELS}
    for model in reversed(MODELS):
        assert service.engine.draw([drawing(model)])[0].tobytes() == first[model].tobytes()
    for one in MODELS:
        for other in MODELS:
            assert one == other or np.abs(as_array(first[one]) - as_array(first[other])).max() > 8


def test_mixed_drawings_come_back_in_order(service: Service) -> None:
    mixed = [drawing(model, seed) for seed in (1, 2) for model in MODELS]
    for one, picture in zip(mixed, service.engine.draw(mixed), strict=True):
        assert np.abs(as_array(service.engine.draw([one])[0]) - as_array(picture)).max() <= 1


@pytest.mark.parametrize("subject", ["lora", "full"])
def test_a_subject_beside_others_draws_what_diffusers_draws_alone(
    service: Service, base: Path, request: pytest.FixtureRequest, subject: str
) -> None:
    import torch
    from diffusers import StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel

    made: Made = request.getfixturevalue(subject)
    pipeline: Any = StableDiffusionPipeline.from_pretrained(str(base), local_files_only=True, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    if subject == "lora":
        pipeline.load_lora_weights(str(made.folder), weight_name=LORA_WEIGHTS)
    else:
        pipeline.unet = UNet2DConditionModel.from_pretrained(str(made.folder / "unet"))
        pipeline.text_encoder = CLIPTextModel.from_pretrained(str(made.folder / "text_encoder"))
    wanted = drawing("rusty" if subject == "lora" else "boxy")
    theirs = pipeline(
        wanted.prompt, num_inference_steps=4, guidance_scale=4.0, height=32, width=32,
        generator=torch.Generator().manual_seed(7),
    ).images[0]  # fmt: skip
    assert np.abs(as_array(service.engine.draw([wanted])[0]) - as_array(theirs)).max() <= 1


def test_a_seed_is_a_picture_whatever_else_is_in_the_batch(service: Service) -> None:
    """Bit by bit, with other subjects, steps, guidance and schedulers beside it, wherever its place is."""
    mixed = [
        drawing("rusty", 1),
        replace(drawing("tabby", 2), steps=7),
        replace(drawing("base", 3), guidance_scale=1.0),
        replace(drawing("rusty", 4), sampler=Sampler.EULER_A, steps=3),
        drawing("tabby", 5),
        drawing("base", 6),
    ]
    alone = [service.engine.draw([one])[0].tobytes() for one in mixed]
    for order in (mixed, mixed[::-1], mixed[2:] + mixed[:2]):
        for one, picture in zip(order, service.engine.draw(order), strict=True):
            assert picture.tobytes() == alone[mixed.index(one)]


def test_the_device_running_out_of_memory_fails_a_request_alone(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    engine: Any = service.engine
    advance = engine._advance

    def scarce(running: Any, rows: int) -> None:
        if len(running) > 1 or running[0].drawing.seed == 13:
            raise torch.OutOfMemoryError
        advance(running, rows)

    monkeypatch.setattr(engine, "_advance", scarce)
    runs = [engine.begin(drawing("rusty", seed)) for seed in (12, 13)]
    engine.step(runs)
    assert (runs[0].done, runs[0].fault) == (1, None)
    assert isinstance(runs[1].fault, Refused)
    assert "fewer or smaller" in str(runs[1].fault)
    for run in runs:
        engine.end(run)


@pytest.mark.parametrize("kind", ["dora", "convolutions", "rslora", "ranks"])
def test_other_adapters_draw_as_diffusers_draws_them(base: Path, places: Places, tmp_path: Path, kind: str) -> None:
    import torch
    from diffusers import StableDiffusionPipeline, UNet2DConditionModel
    from diffusers.training_utils import _collate_lora_metadata
    from peft import LoraConfig, get_peft_model_state_dict

    from dreambooth_server.studio import open_studio

    torch.manual_seed(3)
    changes: dict[str, Any] = {
        "dora": {"use_dora": True},
        "convolutions": {"target_modules": ["conv1", "to_v", "proj_in", "time_emb_proj"]},
        "rslora": {"use_rslora": True},
        "ranks": {"rank_pattern": {"to_q": 6}, "alpha_pattern": {"to_q": 3}},
    }[kind]
    unet: Any = UNet2DConditionModel.from_pretrained(str(base / "unet"))
    usual: dict[str, Any] = {"r": 4, "lora_alpha": 8, "target_modules": ["to_q", "to_v"], "init_lora_weights": False}
    unet.add_adapter(LoraConfig(**{**usual, **changes}))
    layers = get_peft_model_state_dict(unet)
    settings = _collate_lora_metadata({"unet": unet})
    StableDiffusionPipeline.save_lora_weights(str(tmp_path), unet_lora_layers=layers, **settings)
    write_card(tmp_path, base)
    write_manifest(tmp_path)
    pipeline: Any = StableDiffusionPipeline.from_pretrained(str(base), local_files_only=True, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_lora_weights(str(tmp_path), weight_name=LORA_WEIGHTS)
    theirs = pipeline(
        drawing("rusty").prompt, num_inference_steps=4, guidance_scale=4.0, height=32, width=32,
        generator=torch.Generator().manual_seed(7),
    ).images[0]  # fmt: skip
    artifact = fetch_artifact(SubjectSource(str(tmp_path)), places)
    studio = open_studio(base, {"rusty": artifact})
    ours, plain = studio.draw([drawing("rusty")])[0], studio.draw([drawing("base")])[0]
    assert np.abs(as_array(ours) - as_array(theirs)).max() <= 1
    assert np.abs(as_array(ours) - as_array(plain)).max() > 8


def test_older_names_of_an_adapters_layers_draw_alike(base: Path, places: Places, tmp_path: Path) -> None:
    """Trainers of before named attention as diffusers does and all else as peft does; now all is named as peft does."""
    import torch
    from diffusers import StableDiffusionPipeline, UNet2DConditionModel
    from diffusers.training_utils import _collate_lora_metadata
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft import LoraConfig, get_peft_model_state_dict

    from dreambooth_server.studio import open_studio

    torch.manual_seed(4)
    unet: Any = UNet2DConditionModel.from_pretrained(str(base / "unet"))
    targets = ["to_q", "to_out.0", "ff.net.2", "conv_in", "conv1"]
    unet.add_adapter(LoraConfig(r=4, lora_alpha=8, use_dora=True, target_modules=targets, init_lora_weights=False))
    layers, drawn = get_peft_model_state_dict(unet), set()
    for name, named in (("old", convert_state_dict_to_diffusers(layers)), ("new", layers)):
        folder = tmp_path / name
        settings = _collate_lora_metadata({"unet": unet})
        StableDiffusionPipeline.save_lora_weights(str(folder), unet_lora_layers=named, **settings)
        write_card(folder, base)
        write_manifest(folder)
        artifact = fetch_artifact(SubjectSource(str(folder)), places)
        drawn.add(open_studio(base, {"rusty": artifact}).draw([drawing("rusty")])[0].tobytes())
    assert convert_state_dict_to_diffusers(layers).keys() != layers.keys()
    assert len(drawn) == 1


def test_a_learned_token_goes_with_its_adapter_through_one_slot(base: Path, places: Places, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    from dreambooth_server.settings import Room
    from dreambooth_server.studio import open_studio

    studio = open_studio(base, {}, room=Room(1, 2, 4))
    for seed, name in enumerate(("one", "two", "plain")):
        folder = tmp_path / name
        folder.mkdir()
        write_lora(folder, base, seed=8)
        torch.manual_seed(seed)
        save_file({"<sks>": torch.randn(1, 96)}, folder / TOKEN_WEIGHTS)
        write_card(folder, base, name=name, learned_token=name != "plain")
        write_manifest(folder)
        studio.add(name, fetch_artifact(SubjectSource(str(folder)), places))
    drawn = {name: studio.draw([drawing(name)])[0].tobytes() for name in ("one", "two", "plain")}
    assert len(set(drawn.values())) == 3
    for name in ("two", "plain", "one"):
        studio._words.clear()
        assert studio.draw([drawing(name)])[0].tobytes() == drawn[name]


def test_counting_tokens_disturbs_no_drawing(service: Service) -> None:
    """A fast tokenizer keeps padding and truncation as state: another thread's counting once changed the shapes."""
    over = threading.Event()

    def count() -> None:
        while not over.is_set():
            service.engine.count_tokens("a photo of rusty")

    counting = threading.Thread(target=count)
    counting.start()
    try:
        for seed in range(20):
            service.engine.draw([Drawing("base", "a robot", "a cat", seed, 32, 32, 1, 4.0)])
    finally:
        over.set()
        counting.join()


def test_half_precision_draws_nearly_the_same(service: Service, base: Path) -> None:
    """What runs on a GPU, on the CPU: every part in bfloat16 but the VAE, which would overflow in fp16."""
    import torch

    from dreambooth_server.studio import Placement, open_studio

    studio = open_studio(base, service.engine.artifacts, Placement("cpu", torch.bfloat16))
    for model in MODELS:
        exact, half = service.engine.draw([drawing(model)])[0], studio.draw([drawing(model)])[0]
        assert exact.tobytes() != half.tobytes()
        assert np.abs(as_array(exact) - as_array(half)).mean() < 4


def test_weights_of_another_model_are_refused(copy_of_lora: Path, base: Path, places: Places, service: Service) -> None:
    import torch
    from safetensors.torch import save_file

    from dreambooth_server.studio import open_studio

    for name, shape in (("unet.nothing.lora_A.weight", (4, 3)), (None, (4, 3))):
        key = name or "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight"
        save_file(
            {key: torch.zeros(shape), key.replace("lora_A", "lora_B"): torch.zeros(shape[::-1])},
            copy_of_lora / LORA_WEIGHTS,
        )
        write_card(copy_of_lora, base)
        write_manifest(copy_of_lora)
        artifact = fetch_artifact(SubjectSource(str(copy_of_lora)), places)
        with pytest.raises(LoadFault, match="do not fit the base"):
            open_studio(base, {"rusty": artifact})
