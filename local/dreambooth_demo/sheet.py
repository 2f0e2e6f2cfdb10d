"""The picture sheet: what was shown, what the base draws of the prompts, what the personalised model draws of them."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

CELL, GAP, LABEL = 160, 8, 28
BACKGROUND, INK = (250, 250, 252), (40, 40, 48)


def contact_sheet(rows: Sequence[tuple[str, Sequence[tuple[str, Image.Image]]]]) -> Image.Image:
    """Rows of (heading, [(caption, picture)]) on one sheet, pictures scaled to CELL pixels without smoothing. Pure."""
    columns = max(len(pictures) for _, pictures in rows)
    height = 2 * LABEL + CELL + GAP
    sheet = Image.new("RGB", (GAP + columns * (CELL + GAP), len(rows) * height + GAP), BACKGROUND)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    heading_font = ImageFont.load_default(17)
    for r, (heading, pictures) in enumerate(rows):
        top = r * height + GAP
        pen.text((GAP, top), heading, INK, heading_font)
        for c, (caption, picture) in enumerate(pictures):
            left = GAP + c * (CELL + GAP)
            sheet.paste(picture.resize((CELL, CELL), Image.Resampling.NEAREST), (left, top + LABEL))
            pen.text((left, top + LABEL + CELL + 4), _fit(caption, font), INK, font)
    return sheet


def _fit(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    while text and font.getlength(text) > CELL:
        text = text[:-2].rstrip("…") + "…"
    return text


def load_pictures(folder: Path) -> list[tuple[Path, Image.Image]]:
    """The PNG pictures of a folder, by name."""
    return [(path, Image.open(path).convert("RGB")) for path in sorted(folder.glob("*.png"))]
