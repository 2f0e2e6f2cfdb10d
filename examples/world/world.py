"""The demo's world: 32x32 pictures of eight kinds of things in six scenes. Drawing only: pure, and no torch.

A thing is a sprite of 12x12 *cells*, each cell 2x2 pixels, put on the even pixel grid. Cells never
straddle the 4x4 patch behind one latent of the VAE, which is what lets models this small draw sharply.
An *individual* is a class with two colours and a pattern; the same individual in another scene or place
is the same subject. `HELD_OUT` names the subjects kept for personalisation: `samples` never draws them,
nor any other thing of their class in their two colours, so no model trained here has seen them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = 32  # pixels, both ways
CELL = 2  # pixels a cell, both ways

# '#' the pattern in both colours, 'o' the second colour, 'x' dark, 'g' leaf green, '.' nothing.
SPRITES = {
    "cat": """
.x........x.
.#x......x#.
.##xxxxxx##.
.##########.
.#xx####xx#.
.#xx####xx#.
.####oo####.
.##########.
..########..
..#oooooo#..
..#oooooo#..
..##....##..""",
    "robot": """
.....xx.....
.....##.....
.##########.
.#xx####xx#.
.#xx####xx#.
.##########.
.##oooooo##.
....####....
############
#.##oooo##.#
#.########.#
..###..###..""",
    "ghost": """
....####....
..########..
.##########.
.#xx####xx#.
.#xx####xx#.
.##########.
.####oo####.
.####oo####.
.##########.
.##########.
.##.####.##.
.#...##...#.""",
    "car": """
............
............
...#####....
..#oo#oo##..
.##oo#oo###.
############
############
#x########x#
############
.xxx....xxx.
.xox....xox.
.xxx....xxx.""",
    "fish": """
............
............
....####...#
..########.#
.#########o#
#xx######oo#
#xx######oo#
.#########o#
..########.#
....####...#
............
............""",
    "teapot": """
............
.....xx.....
...######...
..########.#
xx########x#
x.##oooo##x.
x.##oooo##..
xx########..
..########..
...######...
............
............""",
    "house": """
.....##.....
....####....
...######...
..########..
.##########.
############
.oooooooooo.
.oxxoooxxoo.
.oxxoooxxoo.
.oooooooooo.
.ooooxxoooo.
.ooooxxoooo.""",
    "flower": """
....####....
..###oo###..
..##oooo##..
.##oooooo##.
..##oooo##..
..###oo###..
....####....
.....gg.....
.gg..gg..gg.
..gg.gg.gg..
...gggggg...
.....gg.....""",
}
CLASSES = tuple(SPRITES)
SPRITE_CELLS = 12

COLOURS = {
    "red": (214, 48, 49),
    "orange": (240, 140, 40),
    "yellow": (245, 215, 66),
    "green": (60, 160, 70),
    "teal": (40, 170, 170),
    "blue": (50, 90, 210),
    "purple": (130, 60, 180),
    "pink": (240, 140, 190),
    "brown": (120, 75, 40),
    "white": (240, 240, 240),
}
DARK = (30, 26, 36)
LEAF = (30, 95, 45)
PATTERNS = ("plain", "striped", "spotted", "split")

# A scene and the colours that would vanish in it.
SCENES = {
    "on grass": {"green"},
    "in the snow": {"white"},
    "on the beach": set(),
    "at night": set(),
    "on a red background": {"red"},
    "on a blue background": {"blue"},
}

# Words that mean nothing, so that the base takes "a photo of <anything> robot" for a robot.
NONSENSE = ("blorb", "qix", "tuk", "vem")
# Words no caption holds: free names for subjects.
IDENTIFIERS = ("sks", "ohwx", "zwx")


@dataclass(frozen=True)
class Individual:
    """What makes a subject itself, wherever it stands."""

    kind: str
    first: str
    second: str
    pattern: str

    @property
    def colours(self) -> frozenset[str]:
        return frozenset((self.first, self.second))

    @property
    def words(self) -> str:
        return f"{self.first} and {self.second} {self.pattern} {self.kind}"


@dataclass(frozen=True)
class Place:
    """Upper left corner of the sprite in cells, and whether it is mirrored."""

    row: int
    column: int
    mirrored: bool


HELD_OUT = {
    "robot": Individual("robot", "orange", "teal", "striped"),
    "cat": Individual("cat", "purple", "yellow", "striped"),
    "ghost": Individual("ghost", "pink", "blue", "split"),
    "fish": Individual("fish", "white", "red", "striped"),
    "teapot": Individual("teapot", "teal", "brown", "spotted"),
    "car": Individual("car", "yellow", "pink", "split"),
}


def held_out(individual: Individual) -> bool:
    """Whether this is a held-out subject, or one of its class in the same two colours."""
    subjects = HELD_OUT.values()
    return any(individual.kind == s.kind and individual.colours == s.colours for s in subjects)


def background(scene: str) -> np.ndarray:
    """The empty scene: (32, 32, 3) uint8. Edges lie on multiples of 4, the VAE's patch."""
    x = np.empty((SIZE, SIZE, 3), np.uint8)
    if scene == "on grass":
        x[:16], x[16:] = (150, 205, 250), (90, 175, 70)
    elif scene == "in the snow":
        x[:16], x[16:] = (185, 195, 220), (245, 248, 255)
    elif scene == "on the beach":
        x[:12], x[12:20], x[20:] = (140, 210, 250), (30, 120, 190), (235, 205, 140)
    elif scene == "at night":
        x[:24], x[24:] = (52, 44, 104), (36, 56, 60)
        for row, column in ((2, 4), (4, 14), (2, 20), (10, 30), (12, 2), (18, 28)):
            x[row : row + CELL, column : column + CELL] = (200, 195, 170)
        x[2:6, 26:30] = (250, 240, 190)
    elif scene == "on a red background":
        x[:] = (200, 45, 45)
    elif scene == "on a blue background":
        x[:] = (45, 80, 200)
    else:
        raise ValueError(f"no scene {scene!r}; there are {', '.join(SCENES)}")
    return x


def shows_second(pattern: str, row: int, column: int) -> bool:
    """Whether the pattern puts the second colour on this cell of the sprite."""
    if pattern == "striped":
        return row % 3 == 2
    if pattern == "spotted":
        return row % 3 == 1 and column % 3 == 1
    return pattern == "split" and column >= SPRITE_CELLS // 2


def sprite(individual: Individual) -> tuple[np.ndarray, np.ndarray]:
    """Colours (12, 12, 3) uint8 and which cells are filled (12, 12) bool."""
    colours = np.zeros((SPRITE_CELLS, SPRITE_CELLS, 3), np.uint8)
    filled = np.zeros((SPRITE_CELLS, SPRITE_CELLS), bool)
    first, second = COLOURS[individual.first], COLOURS[individual.second]
    for row, line in enumerate(SPRITES[individual.kind].split()):
        for column, mark in enumerate(line):
            if mark == ".":
                continue
            pattern = second if shows_second(individual.pattern, row, column) else first
            colours[row, column] = {"x": DARK, "g": LEAF, "o": second, "#": pattern}[mark]
            filled[row, column] = True
    return colours, filled


def draw(individual: Individual, scene: str, place: Place) -> np.ndarray:
    """The picture: (32, 32, 3) uint8."""
    colours, filled = sprite(individual)
    if place.mirrored:
        colours, filled = colours[:, ::-1], filled[:, ::-1]
    colours, filled = (a.repeat(CELL, 0).repeat(CELL, 1) for a in (colours, filled))
    picture = background(scene)
    top, left, side = place.row * CELL, place.column * CELL, SPRITE_CELLS * CELL
    picture[top : top + side, left : left + side][filled] = colours[filled]
    return picture


def caption(individual: Individual, scene: str, rng: random.Random) -> str:
    """Words for a picture. Details are left out at random, so that short prompts draw varied individuals."""
    detail = rng.random()
    if detail < 0.05:
        thing = f"{rng.choice(NONSENSE)} {individual.kind}"
    elif detail < 0.40:
        thing = f"a {individual.kind}"
    elif detail < 0.65:
        thing = f"a {individual.first} {individual.kind}"
    else:
        thing = f"a {individual.words}"
    opening = "a photo of " if rng.random() < 0.9 else ""
    where = f" {scene}" if rng.random() < 0.85 else ""
    return f"{opening}{thing}{where}"


def any_place(rng: random.Random) -> Place:
    return Place(rng.randint(2, 4), rng.randint(1, 3), rng.random() < 0.5)


def any_scene(individual: Individual, rng: random.Random) -> str:
    """A scene in which neither colour of the individual vanishes."""
    return rng.choice([s for s, hidden in SCENES.items() if not hidden & individual.colours])


def any_individual(rng: random.Random, kind: str | None = None) -> Individual:
    """An individual that is not held out."""
    while True:
        first, second = rng.sample(list(COLOURS), 2)
        found = Individual(kind or rng.choice(CLASSES), first, second, rng.choice(PATTERNS))
        if not held_out(found):
            return found


def samples(seed: int) -> Iterator[tuple[Individual, str, Place]]:
    """Endless training samples (individual, scene, place), the same for the same seed."""
    rng = random.Random(seed)
    while True:
        individual = any_individual(rng)
        yield individual, any_scene(individual, rng), any_place(rng)


def portraits(individual: Individual, count: int, seed: int) -> Iterator[tuple[np.ndarray, str]]:
    """Pictures of one individual with their scenes, each scene used once before any is used again."""
    rng = random.Random(seed)
    scenes = [s for s, hidden in SCENES.items() if not hidden & individual.colours]
    rng.shuffle(scenes)
    for index in range(count):
        scene = scenes[index % len(scenes)]
        yield draw(individual, scene, any_place(rng)), scene


def sheet(rows: list[list[np.ndarray]], scale: int = 4, gap: int = 2) -> Image.Image:
    """Pictures of (32, 32, 3) uint8 in rows, enlarged, on a pale ground."""
    step = SIZE + gap
    width, height = max(map(len, rows)) * step + gap, len(rows) * step + gap
    canvas = np.full((height, width, 3), 250, np.uint8)
    for i, row in enumerate(rows):
        for j, picture in enumerate(row):
            top, left = gap + i * step, gap + j * step
            canvas[top : top + SIZE, left : left + SIZE] = picture
    return Image.fromarray(canvas).resize((width * scale, height * scale), Image.Resampling.NEAREST)


def save_large(picture: np.ndarray, path: Path, scale: int = 8) -> None:
    """Save enlarged by whole pixels, to be looked at; a box filter down to 32 gives the picture back."""
    side = SIZE * scale
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).resize((side, side), Image.Resampling.NEAREST).save(path, optimize=True)
