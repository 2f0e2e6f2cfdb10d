"""A judge of the world: a small CNN that names a picture's class and scene, and with it, what a base draws.

Run: python examples/world/judge.py --base examples/base

draws 200 pictures, "a photo of a <class> <scene>" for each pair in turn, and prints one JSON object.
`train_judge.py` makes its weights, `judge.safetensors`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pictures
import torch
import world
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

WEIGHTS = Path(__file__).with_name("judge.safetensors")


class Judge(nn.Module):
    """Four convolutions and two heads; 0.08 M weights."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        widths = (3, width, 2 * width, 2 * width, 4 * width)
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GroupNorm(8, after), nn.ReLU()]
        self.features = nn.Sequential(*layers, nn.Flatten())
        self.kind = nn.Linear(4 * width * 4, len(world.CLASSES))
        self.scene = nn.Linear(4 * width * 4, len(world.SCENES))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of class (B, 8) and scene (B, 6), of images (B, 3, 32, 32) in [-1, 1]."""
        features = self.features(images)
        return self.kind(features), self.scene(features)

    @torch.no_grad()
    def names(self, images: Tensor) -> list[tuple[str, str]]:
        """The likeliest (class, scene) of each image."""
        kinds, scenes = (logits.argmax(1).tolist() for logits in self(images))
        names = list(world.SCENES)
        return [(world.CLASSES[k], names[s]) for k, s in zip(kinds, scenes, strict=True)]


def load_judge(weights: Path = WEIGHTS) -> Judge:
    judge = Judge()
    judge.load_state_dict({name: value.float() for name, value in load_file(weights).items()})
    return judge.eval()


def judged(judge: Judge, drawn: Sequence[Image.Image]) -> list[tuple[str, str]]:
    """Names of PIL pictures of any size."""
    small = [np.asarray(p.convert("RGB").resize((world.SIZE,) * 2, Image.Resampling.BOX)) for p in drawn]
    return judge.names(pictures.normalise(pictures.to_tensor(small)))


@dataclass(frozen=True)
class Accuracy:
    """Shares of pictures whose class, scene, or both were named as asked for."""

    accuracy_class: float
    accuracy_scene: float
    accuracy_both: float


def accuracy(asked: Sequence[tuple[str, str]], named: Sequence[tuple[str, str]]) -> Accuracy:
    kinds = [a[0] == n[0] for a, n in zip(asked, named, strict=True)]
    scenes = [a[1] == n[1] for a, n in zip(asked, named, strict=True)]
    both = [kind and scene for kind, scene in zip(kinds, scenes, strict=True)]
    return Accuracy(*(sum(hits) / len(hits) for hits in (kinds, scenes, both)))


def requests(count: int) -> list[tuple[str, str]]:
    """(class, scene) pairs, each pair as often as the next."""
    pairs = [(kind, scene) for scene in world.SCENES for kind in world.CLASSES]
    return [pairs[index % len(pairs)] for index in range(count)]


def draw(pipeline, asked: Sequence[tuple[str, str]], steps: int, guidance: float, seed: int) -> list[Image.Image]:
    """A picture for each pair, in batches; the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    drawn: list[Image.Image] = []
    for start in range(0, len(asked), 50):
        prompts = [f"a photo of a {kind} {scene}" for kind, scene in asked[start : start + 50]]
        drawn += pipeline(prompts, num_inference_steps=steps, guidance_scale=guidance, generator=generator).images
    return drawn


def main() -> None:
    from diffusers import StableDiffusionPipeline

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=4.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sheet", type=Path, help="where to write the pictures, eight in a row")
    args = parser.parse_args()
    pipeline = StableDiffusionPipeline.from_pretrained(args.base)
    pipeline.set_progress_bar_config(disable=True)
    asked = requests(args.pictures)
    begun = time.monotonic()
    drawn = draw(pipeline, asked, args.steps, args.guidance, args.seed)
    seconds = time.monotonic() - begun
    if args.sheet:
        arrays = [np.asarray(picture.convert("RGB")) for picture in drawn]
        world.sheet([arrays[i : i + 8] for i in range(0, len(arrays), 8)]).save(args.sheet)
    found = accuracy(asked, judged(load_judge(), drawn))
    print(json.dumps({**vars(found), "pictures": len(drawn), "seconds": round(seconds, 1)}))


if __name__ == "__main__":
    main()
