"""The denoising steps against diffusers' own pipeline, and what they cost."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dreambooth_server.drawing import Drawing, Refused, Sampler


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


def sample(parts: Any, drawings: Sequence[Drawing]) -> list[Any]:
    """All of them together, until each is finished."""
    import torch

    from dreambooth_server.sampler import advance, begin, finish

    runs = [begin(parts, one) for one in drawings]
    while running := [run for run in runs if not run.finished]:
        with torch.inference_mode():
            advance(running)
        assert not any(run.fault for run in runs)
    return [finish(run) for run in runs]


def off(one: Any, other: Any) -> int:
    """The largest difference of two pictures, of 255."""
    return int(np.abs(np.asarray(one, int) - np.asarray(other, int)).max())


@contextmanager
def counted(unet: Any) -> Iterator[list[int]]:
    """Batch sizes of the U-Net's calls."""
    sizes: list[int] = []
    hook = unet.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    yield sizes
    hook.remove()


def theirs(pipeline: Any, seed: int, negative: str = "") -> Any:
    import torch

    return pipeline(
        drawing().prompt, negative_prompt=negative, num_inference_steps=6, guidance_scale=4.0, height=32,
        width=32, generator=torch.Generator().manual_seed(seed),
    ).images[0]  # fmt: skip


def test_it_draws_what_diffusers_draws(pipeline: Any, parts: Any) -> None:
    negative = "a photo of a cat"
    ours = sample(parts, [drawing(s, negative_prompt=negative) for s in (3, 4)])
    assert max(off(one, theirs(pipeline, seed, negative)) for one, seed in zip(ours, (3, 4), strict=True)) <= 1


@pytest.mark.parametrize("name", list(Sampler))
def test_schedulers_by_name_are_diffusers(pipeline: Any, parts: Any, name: Sampler) -> None:
    from dreambooth_server.sampler import _SCHEDULERS

    before = pipeline.scheduler
    try:
        pipeline.scheduler = _SCHEDULERS[name].from_config(before.config)
        wanted = theirs(pipeline, 5)
    finally:
        pipeline.scheduler = before
    assert off(sample(parts, [drawing(5, sampler=name)])[0], wanted) <= 1


def test_guidance_goes_through_the_unet_in_one_batch(parts: Any) -> None:
    with counted(parts.unet) as sizes:
        sample(parts, [drawing(s, steps=5) for s in range(3)])
    assert sizes == [6] * 5


def test_without_guidance_the_work_is_halved(parts: Any) -> None:
    with counted(parts.unet) as sizes:
        sample(parts, [drawing(s, guidance_scale=1.0, steps=4) for s in range(3)])
    assert sizes == [3] * 4


def test_a_batch_may_be_filled_up(parts: Any) -> None:
    import torch

    from dreambooth_server.sampler import advance, begin

    run = begin(parts, drawing())
    with counted(parts.unet) as sizes, torch.inference_mode():
        advance([run], rows=5)
    assert (sizes, run.done) == ([5], 1)


def test_drawings_of_a_batch_differ_in_words_guidance_steps_and_scheduler(parts: Any) -> None:
    mixed = [
        drawing(0, prompt="a photo of a cat at night", guidance_scale=2.0),
        drawing(0, steps=3),
        drawing(1, guidance_scale=1.0, sampler=Sampler.EULER_A),
        drawing(2, sampler=Sampler.UNIPC, steps=8),
    ]
    for one, among in zip(mixed, sample(parts, mixed), strict=True):
        assert off(sample(parts, [one])[0], among) <= 1


def test_a_picture_whose_step_fails_fails_alone(parts: Any) -> None:
    import torch

    from dreambooth_server.sampler import advance, begin

    good, bad = begin(parts, drawing(1)), begin(parts, drawing(2))
    bad.extra = {"nonsense": 1}
    with torch.inference_mode():
        advance([bad, good])
    assert isinstance(bad.fault, TypeError)
    assert (good.fault, good.done) == (None, 1)


def test_numbers_that_overflow_are_no_picture(parts: Any) -> None:
    import torch

    from dreambooth_server.sampler import decode

    with pytest.raises(Refused, match="overflowed"):
        decode(parts.vae, torch.full((1, 8, 8, 8), float("nan")))
