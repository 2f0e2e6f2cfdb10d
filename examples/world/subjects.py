"""Writes the held-out subjects' pictures and the world's contact sheet.

Run: python examples/world/subjects.py

`examples/robot/images` is the demo's subject; the others, in `examples/subjects/<name>`, are for quality
tables. Five pictures each, 256x256, every cell enlarged by whole pixels.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import world

EXAMPLES = Path(__file__).resolve().parents[1]
PICTURES = 5
# Seeds are apart from those of training, and of what tests draw to compare with.
SEED = 2000


def folder(examples: Path, name: str) -> Path:
    return examples / "robot" / "images" if name == "robot" else examples / "subjects" / name


def write_subjects(examples: Path) -> None:
    for name, individual in world.HELD_OUT.items():
        for index, (picture, _) in enumerate(world.portraits(individual, PICTURES, SEED), start=1):
            world.save_large(picture, folder(examples, name) / f"{index}.png")


def world_sheet() -> list[list]:
    """A row a scene with one of each class, then a row of the held-out subjects."""
    rng = random.Random(4)
    rows = []
    for scene, hidden in world.SCENES.items():
        row = []
        for kind in world.CLASSES:
            individual = world.any_individual(rng, kind)
            while hidden & individual.colours:
                individual = world.any_individual(rng, kind)
            row.append(world.draw(individual, scene, world.any_place(rng)))
        rows.append(row)
    rows.append([next(world.portraits(s, 1, SEED))[0] for s in world.HELD_OUT.values()])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=Path, default=EXAMPLES)
    parser.add_argument("--sheet", type=Path, default=EXAMPLES.parent / "docs" / "world.png")
    args = parser.parse_args()
    write_subjects(args.examples)
    args.sheet.parent.mkdir(parents=True, exist_ok=True)
    world.sheet(world_sheet(), scale=3).quantize(64).save(args.sheet, optimize=True)


if __name__ == "__main__":
    main()
