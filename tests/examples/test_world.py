"""The world draws the same again, keeps its subjects out of training, and its encoders tell subjects apart."""

import itertools
import random

import numpy as np
import pictures
import pytest
import subjects
import tokenizer
import torch
import torch.nn.functional as F
import world
from PIL import Image
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer, CLIPModel

ROBOT = world.HELD_OUT["robot"]


def test_samples_are_the_same_for_the_same_seed():
    first, again, other = (list(itertools.islice(world.samples(seed), 20)) for seed in (5, 5, 6))
    assert first == again
    assert first != other
    for one, same in zip(first, again, strict=True):
        assert np.array_equal(world.draw(*one), world.draw(*same))


def test_no_training_sample_shows_a_held_out_subject():
    pairs = {(s.kind, s.colours) for s in world.HELD_OUT.values()}
    drawn = list(itertools.islice(world.samples(pictures.TRAIN_SEED), 20_000))
    assert not any((individual.kind, individual.colours) in pairs for individual, _, _ in drawn)
    # ... while their classes and their colours are both common in it
    assert sum(individual.kind == "robot" for individual, _, _ in drawn) > 2000
    assert sum(individual.colours == ROBOT.colours for individual, _, _ in drawn) > 200


def test_held_out_is_the_class_in_its_two_colours_whatever_the_pattern():
    swapped = world.Individual("robot", ROBOT.second, ROBOT.first, "plain")
    assert world.held_out(swapped)
    assert not world.held_out(world.Individual("house", ROBOT.first, ROBOT.second, ROBOT.pattern))


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_place_moves_the_thing_and_nothing_else(mirrored):
    here = world.draw(ROBOT, "on a blue background", world.Place(2, 1, mirrored))
    there = world.draw(ROBOT, "on a blue background", world.Place(4, 3, mirrored))
    assert np.array_equal(here[4:28, 2:26], there[8:32, 6:30])


def test_no_individual_stands_where_it_would_vanish():
    for individual, scene, _ in itertools.islice(world.samples(9), 500):
        assert not world.SCENES[scene] & individual.colours


def test_committed_subjects_are_what_the_world_draws(examples):
    """Five pictures of each; a box filter takes them back to 32x32 exactly."""
    for name, individual in world.HELD_OUT.items():
        files = sorted(subjects.folder(examples, name).glob("*.png"))
        drawn = list(world.portraits(individual, subjects.PICTURES, subjects.SEED))
        assert len(files) == len(drawn) == 5
        assert len({scene for _, scene in drawn}) >= 4
        for file, (picture, _) in zip(files, drawn, strict=True):
            with Image.open(file) as image:
                small = image.convert("RGB").resize((world.SIZE, world.SIZE), Image.Resampling.BOX)
            assert np.array_equal(np.asarray(small), picture), file


def test_each_word_is_one_token_and_captions_fit():
    words = tokenizer.make_tokenizer()
    assert [w for w in tokenizer.caption_words() if len(words(w).input_ids) != 3] == []
    longest = max((f"a photo of a {ROBOT.words} {scene}" for scene in world.SCENES), key=len)
    assert len(words(longest).input_ids) <= tokenizer.MAX_TOKENS


def unit(features: torch.Tensor) -> torch.Tensor:
    return F.normalize(features.float(), dim=1)


def clip_features(examples, images):
    model = CLIPModel.from_pretrained(examples / "encoder").eval()
    pixels = AutoImageProcessor.from_pretrained(examples / "encoder")(images, return_tensors="pt").pixel_values
    with torch.inference_mode():
        return unit(model.visual_projection(model.vision_model(pixels).pooler_output))


def dino_features(examples, images):
    model = AutoModel.from_pretrained(examples / "encoder-dino").eval()
    pixels = AutoImageProcessor.from_pretrained(examples / "encoder-dino")(images, return_tensors="pt").pixel_values
    with torch.inference_mode():
        return unit(model(pixels).last_hidden_state[:, 0])


def text_features(examples, texts):
    model = CLIPModel.from_pretrained(examples / "encoder").eval()
    words = AutoTokenizer.from_pretrained(examples / "encoder")
    ids = words(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
    with torch.inference_mode():
        return unit(model.text_projection(model.text_model(input_ids=ids).pooler_output))


def images_of(individual, seed, count=6):
    return [Image.fromarray(picture) for picture, _ in world.portraits(individual, count, seed)]


@pytest.mark.parametrize("features", [clip_features, dino_features])
def test_an_encoder_tells_a_held_out_subject_from_others_of_its_class(examples, features):
    """The closest other picture of a subject, in another scene, is of itself; and on average by a wide margin."""
    rng = random.Random(1)
    for number, subject in enumerate(world.HELD_OUT.values()):
        strangers = [image for _ in range(10) for image in images_of(world.any_individual(rng, subject.kind), 30, 1)]
        found = features(examples, [*images_of(subject, 100 + number), *strangers])
        mine, theirs = found[:6], found[6:]
        own = (mine @ mine.T)[~torch.eye(6, dtype=torch.bool)].mean()
        other = (mine @ theirs.T).mean()
        assert own > 0.7
        assert own - other > 0.25


def test_texts_meet_their_pictures(examples):
    """Of all 48 class-and-scene texts, the nearest to a picture is mostly its own; by chance it would be one in 48."""
    texts = [f"a photo of a {kind} {scene}" for kind in world.CLASSES for scene in world.SCENES]
    drawn = list(itertools.islice(world.samples(pictures.CHECK_SEED), 60))
    images = clip_features(examples, [Image.fromarray(world.draw(*sample)) for sample in drawn])
    nearest = (images @ text_features(examples, texts).T).argmax(1)
    right = [texts[n] == f"a photo of a {i.kind} {s}" for n, (i, s, _) in zip(nearest, drawn, strict=True)]
    assert sum(right) / len(right) >= 0.8
