"""Trains the two small encoders that score fidelity in this world, as CLIP and DINO do in the large one.

Run: python examples/world/train_encoder.py clip --minutes 5 --out examples/encoder
     python examples/world/train_encoder.py dino --minutes 4 --out examples/encoder-dino

`clip` is a CLIPModel: pictures and texts meet (CLIP-T), and pictures of one individual meet across scenes
(CLIP-I). `dino` is a Dinov2Model whose CLS token tells individuals apart whatever the scene. Both learn from
pairs of pictures of one individual in two scenes, against other individuals of a few classes (supervised
contrast, Khosla et al. 2020). Held-out subjects are not among them.
"""

from __future__ import annotations

import argparse
import itertools
import random
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path

import loop
import pictures
import tokenizer as words
import torch
import torch.nn.functional as F
import world
from torch import Tensor
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    CLIPTextConfig,
    CLIPTokenizer,
    CLIPVisionConfig,
    Dinov2Config,
    Dinov2Model,
)

VIEWS = 6  # pictures drawn of each individual
PAIRS = 64  # individuals in a batch, two views of each
TEMPERATURE = 0.15  # of the contrast between individuals
HALF = [0.5, 0.5, 0.5]  # mean and deviation that bring pixels to [-1, 1]
PATCH, WIDTH, LAYERS, HEADS = 4, 96, 3, 4


@dataclass(frozen=True)
class Subject:
    """One individual, its pictures (VIEWS, 3, 32, 32) uint8 and their scenes."""

    individual: world.Individual
    pixels: Tensor
    scenes: list[str]


def draw_subjects(individuals: list[world.Individual], seed: int) -> list[Subject]:
    subjects = []
    for number, individual in enumerate(individuals):
        drawn = list(world.portraits(individual, VIEWS, seed + number))
        subjects.append(Subject(individual, pictures.to_tensor([d[0] for d in drawn]), [d[1] for d in drawn]))
    return subjects


def known_individuals() -> list[world.Individual]:
    """All there are, but for the held-out ones."""
    pairs = itertools.permutations(world.COLOURS, 2)
    every = [world.Individual(k, *p, w) for p, k, w in itertools.product(pairs, world.CLASSES, world.PATTERNS)]
    return [individual for individual in every if not world.held_out(individual)]


@dataclass(frozen=True)
class Batch:
    images: Tensor  # (2 * PAIRS, 3, 32, 32) in [-1, 1]; rows 2i and 2i+1 show one individual
    individuals: list[world.Individual]
    scenes: list[str]


class Batches:
    """Random pairs of views. Few classes a batch: the contrast is then between individuals of one class."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.of_class: dict[str, list[Subject]] = {kind: [] for kind in world.CLASSES}
        for subject in draw_subjects(known_individuals(), seed):
            self.of_class[subject.individual.kind].append(subject)

    def next(self) -> Batch:
        kinds = self.rng.sample(world.CLASSES, 4)
        chosen = [s for kind in kinds for s in self.rng.sample(self.of_class[kind], PAIRS // len(kinds))]
        views = [(subject, view) for subject in chosen for view in self.rng.sample(range(VIEWS), 2)]
        images = torch.stack([subject.pixels[view] for subject, view in views])
        return Batch(
            pictures.roughen(pictures.normalise(images)),
            [subject.individual for subject, _ in views],
            [subject.scenes[view] for subject, view in views],
        )


def same(keys: list[Hashable]) -> Tensor:
    """Which of the keys are equal: (N, N) float."""
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    index = torch.tensor([numbers[key] for key in keys])
    return (index[:, None] == index[None, :]).float()


def contrast(logits: Tensor, matches: Tensor) -> Tensor:
    """Cross-entropy of each row with its matches, equally weighted."""
    return F.cross_entropy(logits, matches / matches.sum(1, keepdim=True))


def identity_loss(features: Tensor, individuals: list[world.Individual]) -> Tensor:
    """Supervised contrast of features (N, D): an individual's other view against all else."""
    unit = F.normalize(features, dim=1)
    itself = torch.eye(len(unit), dtype=torch.bool)
    logits = (unit @ unit.T / TEMPERATURE).masked_fill(itself, -1e4)
    return contrast(logits, same(individuals).masked_fill(itself, 0.0))


# Ways to word a picture, and what two pictures share when the words fit both.
# Class and scene, which is what CLIP-T asks about, come up twice as often as the rest.
WORDINGS: tuple[tuple[Callable, Callable], ...] = (
    *[(lambda i, s: f"a photo of a {i.kind} {s}", lambda i, s: (i.kind, s))] * 2,
    (lambda i, s: f"a photo of a {i.words} {s}", lambda i, s: (i, s)),
    (lambda i, s: f"a photo of a {i.first} {i.kind} {s}", lambda i, s: (i.first, i.kind, s)),
    (lambda i, s: f"a photo of a {i.kind}", lambda i, s: i.kind),
)


def make_clip(tokenizer: CLIPTokenizer) -> CLIPModel:
    """0.8 M weights: a vision tower over 8x8 patches and a text tower."""
    shape = {"hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_attention_heads": HEADS}
    text = CLIPTextConfig(
        **shape,
        vocab_size=len(tokenizer),
        num_hidden_layers=2,
        max_position_embeddings=words.MAX_TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    vision = CLIPVisionConfig(**shape, num_hidden_layers=LAYERS, image_size=world.SIZE, patch_size=PATCH)
    return CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=WIDTH))


def clip_loss(model: CLIPModel, tokenizer: CLIPTokenizer, batch: Batch, rng: random.Random) -> Tensor:
    """Pictures meet their words, and an individual meets itself in another scene."""
    word, shared = rng.choice(WORDINGS)
    shown = list(zip(batch.individuals, batch.scenes, strict=True))
    ids = words.encode(tokenizer, [word(*picture) for picture in shown])
    matches = same([shared(*picture) for picture in shown])
    output = model(input_ids=ids, pixel_values=batch.images)
    across = contrast(output.logits_per_image, matches) + contrast(output.logits_per_text, matches)
    return across + 0.5 * identity_loss(output.image_embeds, batch.individuals)


def make_dino() -> Dinov2Model:
    """0.4 M weights."""
    return Dinov2Model(
        Dinov2Config(
            hidden_size=WIDTH,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            image_size=world.SIZE,
            patch_size=PATCH,
        )
    )


def image_processor() -> CLIPImageProcessor:
    """To 32x32 and [-1, 1]."""
    side = world.SIZE
    return CLIPImageProcessor(
        size={"shortest_edge": side}, crop_size={"height": side, "width": side}, image_mean=HALF, image_std=HALF
    )


@torch.no_grad()
def separation(features: Callable[[Tensor], Tensor]) -> dict[str, float]:
    """Mean cosine between pictures of one held-out subject, and between it and others of its class."""
    own, other = [], []
    for number, subject in enumerate(draw_subjects(list(world.HELD_OUT.values()), 7)):
        rng = random.Random(number)
        strangers = draw_subjects([world.any_individual(rng, subject.individual.kind) for _ in range(8)], 70)
        mine = F.normalize(features(pictures.normalise(subject.pixels)), dim=1)
        theirs = F.normalize(features(pictures.normalise(torch.cat([s.pixels for s in strangers]))), dim=1)
        apart = ~torch.eye(len(mine), dtype=torch.bool)
        own.append((mine @ mine.T)[apart].mean().item())
        other.append((mine @ theirs.T).mean().item())
    return {"own": round(sum(own) / len(own), 3), "other": round(sum(other) / len(other), 3)}


def train_clip(out: Path, plan: loop.Plan) -> None:
    tokenizer, batches, rng = words.make_tokenizer(), Batches(3), random.Random(3)
    model = make_clip(tokenizer)

    def export() -> None:
        model.save_pretrained(out)
        CLIPProcessor(image_processor=image_processor(), tokenizer=tokenizer).save_pretrained(out)
        print(separation(lambda images: model.visual_projection(model.vision_model(images).pooler_output)), flush=True)

    loop.train(model, plan, lambda: clip_loss(model, tokenizer, batches.next(), rng), export)


def train_dino(out: Path, plan: loop.Plan) -> None:
    batches, model = Batches(4), make_dino()

    def loss() -> Tensor:
        batch = batches.next()
        return identity_loss(model(batch.images).last_hidden_state[:, 0], batch.individuals)

    def export() -> None:
        model.save_pretrained(out)
        image_processor().save_pretrained(out)
        print(separation(lambda images: model(images).last_hidden_state[:, 0]), flush=True)

    loop.train(model, plan, loss, export)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("which", choices=("clip", "dino"))
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--state", type=Path, default=Path("build"), help="folder of the runs' states")
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    loop.prepare_torch(0, args.threads)
    plan = loop.Plan(args.state / args.which, args.minutes, 1e-3, ema_decay=0.99)
    {"clip": train_clip, "dino": train_dino}[args.which](args.out, plan)


if __name__ == "__main__":
    main()
