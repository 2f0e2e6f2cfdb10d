from collections import Counter

import pytest
import torch

from dreambooth_trainer.stream import CLASS, STRATA, SUBJECT, Draw, draw, first_index


def sample(index: int, kind: str = SUBJECT, seed: int = 3, flip: bool = True) -> Draw:
    return draw(kind, seed, index, shapes=[(2, 3, 3)] * 5, timesteps=1000, flip=flip)


def same(a: Draw, b: Draw) -> bool:
    facts = (a.picture, a.flip, a.timestep) == (b.picture, b.flip, b.timestep)
    return facts and torch.equal(a.noise, b.noise) and torch.equal(a.latent, b.latent)


def test_a_sample_is_a_pure_function_of_seed_and_index() -> None:
    before = sample(7)
    torch.manual_seed(99)
    torch.rand(5)
    assert same(sample(7), before)


@pytest.mark.parametrize("other", [sample(8), sample(7, seed=4), sample(7, kind=CLASS)])
def test_other_samples_have_other_noise(other: Draw) -> None:
    assert not torch.equal(sample(7).noise, other.noise)
    assert not torch.equal(sample(7).noise, sample(7).latent)


@pytest.mark.parametrize("count", [1, 2, 5, 37])
def test_every_picture_comes_once_per_round(count: int) -> None:
    drawn = [draw(CLASS, 0, i, shapes=[(1,)] * count, timesteps=10, flip=False).picture for i in range(3 * count)]
    assert Counter(drawn) == dict.fromkeys(range(count), 3)


@pytest.mark.parametrize(("world", "batch", "accumulation"), [(1, 4, 1), (2, 2, 1), (4, 1, 1), (1, 2, 2), (2, 1, 2)])
def test_any_world_consumes_the_same_samples_in_the_same_steps(world: int, batch: int, accumulation: int) -> None:
    per_step = world * batch * accumulation
    for step in range(3):
        taken = [
            first_index(step * per_step, micro, rank, world, batch) + b
            for micro in range(accumulation)
            for rank in range(world)
            for b in range(batch)
        ]
        assert taken == list(range(4 * step, 4 * step + 4))


def test_timesteps_are_uniform_and_every_block_spans_them() -> None:
    steps = [sample(i).timestep for i in range(800)]
    assert min(steps) >= 0
    assert max(steps) <= 999
    for block in range(0, 800, STRATA):
        assert sorted(t * STRATA // 1000 for t in steps[block : block + STRATA]) == list(range(STRATA))
    assert abs(sum(steps) / len(steps) - 499.5) < 15


def test_mirroring_only_when_asked_for() -> None:
    assert not any(sample(i, flip=False).flip for i in range(50))
    assert 10 < sum(sample(i).flip for i in range(50)) < 40
