"""Trains the judge.

Run: python examples/world/train_judge.py --minutes 2 --out examples/world/judge.safetensors

It learns from roughened pictures, so that a soft edge does not decide; its accuracy on fresh, clean
pictures is printed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import loop
import pictures
import torch
import torch.nn.functional as F
from judge import WEIGHTS, Judge
from safetensors.torch import save_file
from torch import Tensor

BATCH = 128


def right(judge: Judge, samples: pictures.Samples) -> float:
    """Share of pictures whose class and scene are both named rightly."""
    kinds, scenes = judge(pictures.normalise(samples.pixels))
    both = (kinds.argmax(1) == samples.kinds) & (scenes.argmax(1) == samples.scene_numbers)
    return both.float().mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=2)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    parser.add_argument("--state", type=Path, default=Path("build/judge"), help="folder of the run's state")
    parser.add_argument("--pictures", type=int, default=20_000)
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    loop.prepare_torch(0, args.threads)
    samples = pictures.draw_samples(args.pictures, pictures.TRAIN_SEED)
    check = pictures.draw_samples(1000, pictures.CHECK_SEED)
    kinds, scenes = samples.kinds, samples.scene_numbers
    judge = Judge()

    def loss() -> Tensor:
        rows = torch.randint(0, len(kinds), (BATCH,))
        images = pictures.roughen(pictures.normalise(samples.pixels[rows]))
        kind, scene = judge(images)
        return F.cross_entropy(kind, kinds[rows]) + F.cross_entropy(scene, scenes[rows])

    def export() -> None:
        save_file({name: value.half() for name, value in judge.state_dict().items()}, args.out)
        print(f"accuracy {right(judge, check):.4f} of {len(check.scenes)} pictures", flush=True)

    plan = loop.Plan(args.state, args.minutes, 3e-3, ema_decay=0.99)
    loop.train(judge, plan, loss, export)


if __name__ == "__main__":
    main()
