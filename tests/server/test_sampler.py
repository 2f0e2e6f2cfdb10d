"""The denoising loop against diffusers' own pipeline, and what it costs."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dreambooth_server.drawing import Cancelled, Drawing, Refused


@pytest.fixture(scope="module")
def pipeline(base: Path) -> Any:
    """diffusers' pipeline over the example base, whose scheduler is DPM-Solver++."""
    from diffusers import StableDiffusionPipeline

    found: Any = StableDiffusionPipeline.from_pretrained(str(base), local_files_only=True, safety_checker=None)
    found.set_progress_bar_config(disable=True)
    return found


@pytest.fixture(scope="module")
def parts(pipeline: Any) -> Any:
    from dreambooth_server.sampler import Parts

    config = dict(pipeline.scheduler.config)
    return Parts(pipeline.tokenizer, pipeline.text_encoder, pipeline.unet, pipeline.vae, config)


def drawing(seed: int = 0, **changes: Any) -> Drawing:
    fields: dict[str, Any] = {
        "model": "base", "prompt": "a photo of a robot in the snow", "negative_prompt": "", "seed": seed,
        "width": 32, "height": 32, "steps": 6, "guidance_scale": 4.0,
    }  # fmt: skip
    return Drawing(**{**fields, **changes})


@contextmanager
def counted(unet: Any) -> Iterator[list[int]]:
    """Batch sizes of the U-Net's calls."""
    sizes: list[int] = []
    hook = unet.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    yield sizes
    hook.remove()


def test_it_draws_what_diffusers_draws(pipeline: Any, parts: Any) -> None:
    import torch

    from dreambooth_server.sampler import sample

    negative = "a photo of a cat"
    ours = sample(parts, [drawing(s, negative_prompt=negative) for s in (3, 4)])
    theirs = pipeline(
        [drawing().prompt] * 2, negative_prompt=[negative] * 2, num_inference_steps=6, guidance_scale=4.0, height=32,
        width=32, generator=[torch.Generator().manual_seed(s) for s in (3, 4)],
    ).images  # fmt: skip
    for ours_one, theirs_one in zip(ours, theirs, strict=True):
        assert np.abs(np.asarray(ours_one, int) - np.asarray(theirs_one, int)).max() <= 1


def test_guidance_goes_through_the_unet_in_one_batch(parts: Any) -> None:
    from dreambooth_server.sampler import sample

    with counted(parts.unet) as sizes:
        sample(parts, [drawing(s, steps=5) for s in range(3)])
    assert sizes == [6] * 5


def test_without_guidance_the_work_is_halved(parts: Any) -> None:
    from dreambooth_server.sampler import sample

    with counted(parts.unet) as sizes:
        sample(parts, [drawing(s, guidance_scale=1.0, steps=4) for s in range(3)])
    assert sizes == [3] * 4


def test_a_seed_is_a_picture_whatever_else_is_in_the_batch(parts: Any) -> None:
    """Noise is bit-equal. Pixels may differ by rounding, since a kernel may sum in another order for another batch."""
    import torch

    from dreambooth_server.sampler import initial_noise, sample

    crowd = [drawing(s) for s in range(5)]
    assert torch.equal(initial_noise(parts, crowd)[3], initial_noise(parts, [crowd[3]])[0])
    alone, again, among = sample(parts, [crowd[3]])[0], sample(parts, [crowd[3]])[0], sample(parts, crowd)[3]
    assert alone.tobytes() == again.tobytes()
    assert np.abs(np.asarray(alone, int) - np.asarray(among, int)).max() <= 1


def test_each_drawing_of_a_batch_has_its_own_words_and_guidance(parts: Any) -> None:
    from dreambooth_server.sampler import sample

    mixed = [drawing(0, prompt="a photo of a cat at night", guidance_scale=2.0), drawing(0, guidance_scale=6.0)]
    for one, among in zip(mixed, sample(parts, mixed), strict=True):
        assert np.abs(np.asarray(sample(parts, [one])[0], int) - np.asarray(among, int)).max() <= 1


def test_it_stops_between_steps(parts: Any) -> None:
    from dreambooth_server.sampler import sample

    answers = iter([False, False, True])
    with counted(parts.unet) as sizes, pytest.raises(Cancelled):
        sample(parts, [drawing(steps=50)], lambda: next(answers))
    assert len(sizes) == 2


def test_numbers_that_overflow_are_no_picture(parts: Any) -> None:
    import torch

    from dreambooth_server.sampler import decode

    with pytest.raises(Refused, match="overflowed"):
        decode(parts.vae, torch.full((1, 8, 8, 8), float("nan")))
