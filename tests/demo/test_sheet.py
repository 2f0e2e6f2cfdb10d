"""The picture sheet."""

from PIL import Image

from dreambooth_demo.sheet import CELL, GAP, LABEL, contact_sheet


def test_the_sheet_holds_every_picture_where_its_row_and_column_say():
    colours = {"red": (255, 0, 0), "green": (0, 128, 0), "blue": (0, 0, 255)}
    pictures = {name: Image.new("RGB", (8, 8), colour) for name, colour in colours.items()}
    sheet = contact_sheet(
        [("one", [("r", pictures["red"])]), ("two", [("g", pictures["green"]), ("b", pictures["blue"])])]
    )
    row = 2 * LABEL + CELL + GAP
    assert sheet.size == (GAP + 2 * (CELL + GAP), 2 * row + GAP)
    middle = GAP + LABEL + CELL // 2
    assert sheet.getpixel((GAP + CELL // 2, middle)) == colours["red"]
    assert sheet.getpixel((GAP + CELL // 2, row + middle)) == colours["green"]
    assert sheet.getpixel((2 * GAP + CELL + CELL // 2, row + middle)) == colours["blue"]


def test_a_caption_wider_than_its_picture_is_shortened():
    picture = Image.new("RGB", (8, 8))
    long, short = (contact_sheet([("", [(text, picture)])]) for text in ("w" * 200, ""))
    assert long.size == short.size
