"""Each sample's picture, caption, mask and size belong together, whatever the world; every class image is used."""

from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from dreambooth_trainer.dataset import (
    Batch,
    Dataset,
    Group,
    Latents,
    class_source,
    encode,
    mask_weights,
    subject_source,
)
from dreambooth_trainer.loss import dreambooth_loss, min_snr_weights, sample_errors
from dreambooth_trainer.pictures import Picture

SIDE = 8


def recognisable(count: int, offset: int = 0) -> Latents:
    """Latents that say which picture they are, mirrored or not: (2, 4, 4), no deviation."""
    means = [torch.full((2, 4, 4), float(offset + index)) for index in range(count)]
    return Latents(tuple(torch.stack([torch.stack([mean, torch.zeros_like(mean)])] * 2) for mean in means))


class Encoder:
    """Stands where a family does: a picture's latent is its first pixel."""

    def encode_latents(self, images):
        mean = torch.tensor([image.getpixel((0, 0))[0] for image in images]).float().view(-1, 1, 1, 1)
        mean = mean.expand(-1, 2, images[0].height // 2, images[0].width // 2)
        return mean, torch.zeros_like(mean)


def only(batch: Batch) -> Group:
    """The one group of a batch of one shape."""
    (group,) = batch.groups
    return group


def dataset(batch: int, *, class_images: int = 7, masks: bool = False, flip: bool = False, seed: int = 0) -> Dataset:
    """Five pictures, each with a caption of its own; picture i is i all over."""
    left = Image.new("L", (SIDE, SIDE))
    left.paste(255, (0, 0, SIDE // 2, SIDE))
    training = SimpleNamespace(gradient_accumulation=1, seed=seed, flip=flip)
    plan = SimpleNamespace(
        batch=batch,
        resolution=SIDE,
        device="cpu",
        spec=SimpleNamespace(training=training),
        caption=lambda picture: f"caption of {picture.name}",
    )
    pictures = [
        Picture(f"{i}.png", Image.new("RGB", (SIDE, SIDE), (i, 0, 0)), mask=left if masks and i == 0 else None,
                original=(100 + i, 200 + i))
        for i in range(5)
    ]  # fmt: skip
    captions = [f"caption of {i}.png" for i in (3, 1, 4, 0, 2)]
    latents = encode(Encoder(), [picture.image for picture in pictures], flip)
    subject = subject_source(latents, pictures, plan, captions)
    prior = class_source(recognisable(class_images, 100), SIDE, len(captions)) if class_images else None
    found = Dataset(plan, subject, prior, 1000)
    object.__setattr__(found, "captions", [*captions, "caption of the class"])
    return found


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("batch", [1, 4])
def test_defect_2_every_sample_has_its_own_pictures_caption(batch: int, world: int) -> None:
    """diffusers #14430: `latents_cache[step]` under shuffling paired a picture with another one's caption."""
    data = dataset(batch)
    seen = Counter()
    for step in range(40 // (batch * world)):
        for rank in range(world):
            made = data.batch(step * batch * world, 0, rank, world)
            group = only(made)
            for latent, row, size, name in zip(group.latents, group.rows, group.sizes, made.names, strict=True):
                number, caption = int(latent.mean()), data.captions[row]
                if number < 100:
                    assert caption == f"caption of {number}.png"
                    assert size.tolist() == [100 + number, 200 + number, 0, 0, SIDE, SIDE]
                    assert name.startswith(f"{number}.png ")
                    seen[number] += 1
                else:
                    assert caption == "caption of the class"
    # Under DDP every rank read the same first N/world entries: here all pictures come equally often.
    assert seen == dict.fromkeys(range(5), 8)


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("class_images", [3, 40])
def test_defect_3_every_class_image_is_used(batch: int, world: int, class_images: int) -> None:
    """In diffusers' bucketed scripts class images beyond N_instance × repeats were never used."""
    data = dataset(batch, class_images=class_images)
    seen = set()
    for step in range(-(-class_images // (batch * world))):
        for rank in range(world):
            made = only(data.batch(step * batch * world, 0, rank, world))
            seen |= {int(latent.mean()) - 100 for latent in made.latents[batch:]}
    assert seen == set(range(class_images))


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("batch", [1, 4])
def test_defect_1_min_snr_weights_are_each_samples_own(batch: int, world: int, kind: str) -> None:
    """diffusers multiplied 2B weights with B losses: an error for B > 1, a silent broadcast for B = 1."""
    data, alphas = dataset(batch), torch.linspace(0.999, 0.005, 1000)
    for rank in range(world):
        made = only(data.batch(0, 0, rank, world))
        weights = min_snr_weights(alphas, made.timesteps, 5.0, kind)
        assert weights.shape == (2 * batch,)
        prediction = torch.zeros_like(made.noise)
        errors = sample_errors(prediction, made.noise)
        loss = dreambooth_loss(errors, subjects=batch, prior_weight=0.5, weights=weights)
        each = (made.noise**2).mean((1, 2, 3)) * weights
        torch.testing.assert_close(loss.total, each[:batch].mean() + 0.5 * each[batch:].mean())


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("batch", [1, 4])
def test_defect_4_no_two_samples_have_the_same_noise(batch: int, world: int) -> None:
    """diffusers' ranks were seeded alike: each drew the same noise and timesteps as the others."""
    data, noises, timesteps = dataset(batch), set(), []
    for step in range(4):
        for rank in range(world):
            made = only(data.batch(step * batch * world, 0, rank, world))
            noises |= {noise.numpy().tobytes() for noise in made.noise}
            timesteps.append(made.timesteps.tolist())
    assert len(noises) == 4 * world * 2 * batch
    assert len(set(map(tuple, timesteps))) == len(timesteps)


def test_two_ranks_consume_what_one_does() -> None:
    one, two = only(dataset(4).batch(8, 0, 0, 1)), [only(dataset(2).batch(8, 0, rank, 2)) for rank in range(2)]
    for field in ("latents", "noise", "timesteps", "sizes"):
        subjects = torch.cat([getattr(part, field)[:2] for part in two])
        classes = torch.cat([getattr(part, field)[2:] for part in two])
        assert torch.equal(getattr(one, field), torch.cat([subjects, classes]))
    assert one.rows == two[0].rows[:2] + two[1].rows[:2] + two[0].rows[2:] + two[1].rows[2:]


def test_a_mask_weighs_its_own_picture_and_is_mirrored_with_it() -> None:
    data = dataset(5, masks=True, flip=True)
    mirrored = set()
    for step in range(8):
        made = only(data.batch(step * 5, 0, 0, 1))
        for latent, mask in zip(made.latents, made.masks, strict=True):
            torch.testing.assert_close(mask.mean(), torch.tensor(1.0))
            if int(latent.mean()) == 0:
                assert sorted(mask.unique().tolist()) == [0, 2]
                mirrored.add(bool(mask[0, 0] == 0))
            else:
                assert torch.equal(mask, torch.ones(4, 4))
    assert mirrored == {True, False}


def test_what_is_masked_out_has_no_gradient() -> None:
    left = Image.new("L", (32, 32))
    left.paste(255, (0, 0, 16, 32))
    masks = mask_weights(left, (4, 4))[None]
    prediction, target = torch.zeros(1, 2, 4, 4, requires_grad=True), torch.ones(1, 2, 4, 4)
    dreambooth_loss(sample_errors(prediction, target, masks), subjects=1, prior_weight=1.0).total.backward()
    assert prediction.grad[..., :2].abs().min() > 0
    assert not prediction.grad[..., 2:].any()


def test_without_masks_there_is_none() -> None:
    assert only(dataset(2).batch(0, 0, 0, 1)).masks is None


def test_pictures_of_several_shapes_are_grouped_and_their_losses_are_in_the_batchs_order() -> None:
    plan = SimpleNamespace(batch=4, resolution=SIDE, device="cpu", caption=lambda picture: picture.name)
    plan.spec = SimpleNamespace(training=SimpleNamespace(gradient_accumulation=1, seed=0, flip=True))
    sizes = [(8, 8), (16, 4), (8, 8), (4, 16)]
    pictures = [Picture(f"{i}.png", Image.new("RGB", size, (i, 0, 0))) for i, size in enumerate(sizes)]
    latents = encode(Encoder(), [picture.image for picture in pictures], True)
    data = Dataset(
        plan,
        subject_source(latents, pictures, plan, [p.name for p in pictures]),
        class_source(recognisable(3, 100), SIDE, 4),
        1000,
    )
    batch = data.batch(0, 0, 0, 1)
    assert sorted(len(group.places) for group in batch.groups) == [1, 1, 6]
    numbers = batch.in_order([group.latents.mean((1, 2, 3)) for group in batch.groups])
    for place, (number, name) in enumerate(zip(numbers.tolist(), batch.names, strict=True)):
        assert name.startswith(f"{number:.0f}.png " if place < 4 else f"class image {number - 100:.0f} ")
    for group in batch.groups:
        shapes = {tuple(latent.shape[1:]) for latent in (*group.latents, *group.noise)}
        assert len(shapes) == 1
        for number, target in zip(group.latents.mean((1, 2, 3)).int().tolist(), group.sizes.tolist(), strict=True):
            assert tuple(target[4:]) == (SIDE, SIDE) if number >= 100 else target[:-3:-1] == list(sizes[number])


def test_mask_of_a_picture_without_one(tmp_path: Path) -> None:
    assert torch.equal(mask_weights(None, (2, 3)), torch.ones(2, 3))
