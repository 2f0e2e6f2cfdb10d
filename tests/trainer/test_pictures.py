import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dreambooth_trainer.faults import DatasetInvalid, DatasetNotFound
from dreambooth_trainer.pictures import bucket, decode, fit, load_pictures, sheet

RED, BLUE = (220, 20, 30), (20, 30, 220)


def halves(width: int = 64, height: int = 64) -> Image.Image:
    """Red above, blue below."""
    image = Image.new("RGB", (width, height), RED)
    image.paste(BLUE, (0, height // 2, width, height))
    return image


def saved(image: Image.Image, path: Path, **options) -> Path:
    image.save(path, **options)
    return path


def is_close(pixel, colour, tolerance: int = 40) -> bool:
    return all(abs(a - b) <= tolerance for a, b in zip(pixel, colour, strict=True))


def sixteen_bit(path: Path) -> Path:
    Image.fromarray(np.full((64, 64), 0x8000, np.uint16)).save(path)
    return path


def exif_rotated(path: Path) -> Path:
    """Stored lying on its side, to be turned upright: red must end up above."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(halves().rotate(90), path, exif=exif, quality=95)


ODD = {
    "cmyk.jpg": lambda p: saved(halves().convert("CMYK"), p, quality=95),
    "grey.png": lambda p: saved(halves().convert("L"), p),
    "grey-alpha.png": lambda p: saved(halves().convert("LA"), p),
    "palette.png": lambda p: saved(halves().convert("P"), p),
    "bitmap.png": lambda p: saved(halves().convert("1"), p),
    "picture.webp": lambda p: saved(halves(), p, quality=95),
    "UPPER.JPG": lambda p: saved(halves(), p, format="JPEG", quality=95),
    "progressive.jpeg": lambda p: saved(halves(), p, format="JPEG", progressive=True),
    "sixteen.png": sixteen_bit,
}


@pytest.mark.parametrize("name", ODD)
def test_odd_pictures_work(tmp_path: Path, name: str) -> None:
    image = decode(ODD[name](tmp_path / name), 32)
    assert image.mode == "RGB"
    assert image.size == (64, 64)


@pytest.mark.parametrize("name", ["cmyk.jpg", "palette.png", "picture.webp", "UPPER.JPG"])
def test_colours_survive(tmp_path: Path, name: str) -> None:
    image = decode(ODD[name](tmp_path / name), 32)
    assert is_close(image.getpixel((32, 8)), RED)
    assert is_close(image.getpixel((32, 56)), BLUE)


def test_sixteen_bits_are_scaled_not_cut(tmp_path: Path) -> None:
    assert decode(sixteen_bit(tmp_path / "a.png"), 32).getpixel((5, 5)) == (128, 128, 128)


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    image = decode(exif_rotated(tmp_path / "turned.jpg"), 32)
    assert is_close(image.getpixel((32, 4)), RED)
    assert is_close(image.getpixel((32, 60)), BLUE)


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    path = saved(Image.new("RGBA", (64, 64), (0, 0, 0, 0)), tmp_path / "clear.png")
    assert decode(path, 32).getpixel((3, 3)) == (255, 255, 255)


def test_large_photograph(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(halves(4000, 3000).rotate(90, expand=True).resize((4000, 3000)), tmp_path / "photo.jpg", exif=exif)
    image = fit(decode(path, 64), (64, 64))
    assert image.size == (64, 64)
    assert is_close(image.getpixel((32, 4)), RED)


def truncated(path: Path) -> Path:
    buffer = io.BytesIO()
    Image.effect_noise((200, 200), 50).save(buffer, format="JPEG")
    path.write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    return path


def bomb(path: Path) -> Path:
    return saved(Image.new("1", (12_000, 12_000)), path)


def text(path: Path) -> Path:
    path.write_text("this is no picture")
    return path


def empty(path: Path) -> Path:
    path.write_bytes(b"")
    return path


def broken_png(path: Path) -> Path:
    data = bytearray(saved(Image.effect_noise((200, 200), 50), path).read_bytes())
    data[600:900] = bytes(300)
    path.write_bytes(data)
    return path


BAD = {
    "truncated.jpg": (truncated, "cannot be read to its end"),
    "text.png": (text, "not a PNG, JPEG or WebP"),
    "empty.png": (empty, "not a PNG, JPEG or WebP"),
    "broken.png": (broken_png, "cannot be read"),
    "tiny.png": (lambda p: saved(Image.new("RGB", (1, 1)), p), "too small"),
    "low.png": (lambda p: saved(Image.new("RGB", (100, 100)), p), "too small: at least 128"),
    "thin.png": (lambda p: saved(Image.new("RGB", (4000, 8)), p), "too small"),
    "bomb.png": (bomb, "too large"),
    "gif.png": (lambda p: saved(halves(), p, format="GIF"), "not a PNG, JPEG or WebP"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_pictures_are_refused_by_name(tmp_path: Path, name: str) -> None:
    make, message = BAD[name]
    with pytest.raises(DatasetInvalid, match=message) as caught:
        decode(make(tmp_path / name), 512)
    assert name in str(caught.value)


def test_no_pictures(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("words")
    (tmp_path / ".hidden.png").write_bytes(b"")
    with pytest.raises(DatasetNotFound):
        load_pictures(tmp_path, 32, 0)


def test_the_last_are_held_out_and_the_digest_follows_the_content(tmp_path: Path) -> None:
    for index in range(3):
        saved(Image.new("RGB", (40, 40), (index, 0, 0)), tmp_path / f"{index}.png")
    found = load_pictures(tmp_path, 32, 1)
    assert [p.name for p in found.train] == ["0.png", "1.png"]
    assert [p.name for p in found.held_out] == ["2.png"]
    saved(Image.new("RGB", (40, 40), (9, 0, 0)), tmp_path / "1.png")
    assert load_pictures(tmp_path, 32, 1).digest != found.digest
    with pytest.raises(DatasetInvalid, match="holdout"):
        load_pictures(tmp_path, 32, 3)


def test_the_middle_is_cut_out() -> None:
    wide = Image.new("RGB", (300, 100), BLUE)
    wide.paste(RED, (100, 0, 200, 100))
    # The resampling filter may ring at the edges of the cut.
    assert np.abs(np.asarray(fit(wide, (32, 32)), int)[:, 2:-2] - RED).max() <= 2


def test_sheet_has_rows_of_columns() -> None:
    page = sheet([Image.new("RGB", (4, 4), c) for c in (RED, BLUE, RED)], 2)
    assert page.size == (8, 8)
    assert page.getpixel((5, 1)) == BLUE
    assert page.getpixel((1, 5)) == RED


def with_files(folder: Path, **texts: str) -> Path:
    for name in ("1.png", "2.png"):
        saved(halves(), folder / name)
    for stem, text in texts.items():
        (folder / f"{stem.strip('_')}.txt").write_text(text)
    return folder


def test_captions_and_masks_belong_to_the_picture_beside_them(tmp_path: Path) -> None:
    with_files(tmp_path, _2=" a drawing of\n{identifier}  ")
    before = load_pictures(tmp_path, 32, 0)
    mask = Image.new("L", (64, 64))
    mask.paste(255, (0, 0, 64, 32))
    saved(mask, tmp_path / "1.mask.png")
    first, second = load_pictures(tmp_path, 32, 0).train
    assert (first.caption, second.caption) == (None, "a drawing of {identifier}")
    assert (second.mask, first.mask.size) == (None, (32, 32))
    assert first.mask.getpixel((3, 3)) == 255
    assert first.mask.getpixel((3, 28)) == 0
    digests = {before.digest, load_pictures(tmp_path, 32, 0).digest}
    (tmp_path / "2.txt").write_text("another caption")
    assert len(digests | {load_pictures(tmp_path, 32, 0).digest}) == 3


def test_the_cut_is_known(tmp_path: Path) -> None:
    saved(halves(300, 100), tmp_path / "1.png")
    (picture,) = load_pictures(tmp_path, 32, 0).train
    assert (picture.original, picture.cut) == ((100, 300), (0, 32))


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1000, 1000), (512, 512)),
        ((1030, 1000), (512, 512)),
        ((4000, 3000), (576, 448)),
        ((3000, 4000), (448, 576)),
        ((1920, 1080), (640, 384)),
        ((9000, 1000), (1024, 128)),
    ],
)
def test_a_bucket_is_the_nearest_shape_of_the_squares_area(size: tuple[int, int], expected: tuple[int, int]) -> None:
    found = bucket(size, 512, 64)
    assert found == expected
    assert found[0] * found[1] <= 512 * 512


def test_pictures_to_train_on_keep_their_shape_in_buckets(tmp_path: Path) -> None:
    for name, size in (("1.png", (300, 100)), ("2.png", (90, 100)), ("3.png", (300, 100))):
        saved(halves(*size), tmp_path / name)
    mask = Image.new("L", (300, 100))
    mask.paste(255, (150, 0, 300, 100))
    saved(mask, tmp_path / "1.mask.png")
    found = load_pictures(tmp_path, 32, 1, step=16)
    wide, tall = found.train
    assert (wide.image.size, wide.mask.size, wide.original, wide.cut) == ((48, 16), (48, 16), (100, 300), (0, 0))
    assert (wide.mask.getpixel((4, 8)), wide.mask.getpixel((44, 8))) == (0, 255)
    assert tall.image.size == (32, 32)
    assert found.held_out[0].image.size == (32, 32)


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("1.txt", lambda p: p.write_bytes(b"\xff\xfe\x00"), "UTF-8"),
        ("1.txt", lambda p: p.write_text("  \n"), "1 to 1000 characters"),
        ("1.txt", lambda p: p.write_text("a" * 1001), "1 to 1000 characters"),
        ("1.mask.png", lambda p: saved(Image.new("L", (32, 64), 255), p), "32×64, but 1.png has 64×64"),
        ("1.mask.png", lambda p: saved(Image.new("L", (64, 64), 0), p), "nothing of it is white"),
        ("1.mask.png", text, "not a PNG"),
        ("3.mask.png", lambda p: saved(Image.new("L", (64, 64), 255), p), "no picture 3"),
    ],
)
def test_bad_captions_and_masks_are_refused_by_name(tmp_path: Path, name: str, make, message: str) -> None:
    with_files(tmp_path)
    make(tmp_path / name)
    with pytest.raises(DatasetInvalid, match=message) as caught:
        load_pictures(tmp_path, 32, 0)
    assert str(caught.value).startswith(name)


def test_two_pictures_never_share_a_caption(tmp_path: Path) -> None:
    with_files(tmp_path, _1="words")
    saved(halves(), tmp_path / "1.jpg")
    with pytest.raises(DatasetInvalid, match=r"would share 1\.txt"):
        load_pictures(tmp_path, 32, 0)
