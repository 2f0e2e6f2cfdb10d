"""Pictures of people, made fit for training: upright, RGB, square.

PNG, JPEG and WebP of any colour mode: CMYK, palettes, grey and 16 bit are converted; transparency is laid on white;
EXIF's orientation is applied. Refused with the file's name: what is no picture or is cut off, a short side below 16
pixels or below a quarter of the resolution (nothing is left to learn from), more than 89 megapixels.
"""

import math
import struct
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from dreambooth_api.artifact import content_digest
from dreambooth_trainer.faults import DatasetInvalid, DatasetNotFound
from dreambooth_trainer.manifests import entry_of_file

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
CAPTION, MASK = ".txt", ".mask.png"
MAX_CAPTION = 1000
MIN_SIDE = 16
# Above this Pillow suspects a decompression bomb.
MAX_PIXELS = 89_000_000
_FORMATS = ("PNG", "JPEG", "WEBP")
_UNREADABLE = (OSError, SyntaxError, ValueError, TypeError, IndexError, EOFError, struct.error, zlib.error)


@dataclass(frozen=True)
class Picture:
    """One picture, ready: `image` is RGB, resolution × resolution or of its bucket's size."""

    name: str
    image: Image.Image
    # Its own caption, as a template; None: the subject's prompt.
    caption: str | None = None
    # Grey, cut as the picture is: white is what counts. None: everything counts.
    mask: Image.Image | None = None
    # Height and width before, top and left of the cut in the scaled picture, pixels.
    original: tuple[int, int] = (0, 0)
    cut: tuple[int, int] = (0, 0)

    @property
    def caption_name(self) -> str:
        """The file that its caption is in."""
        return Path(self.name).with_suffix(CAPTION).name


@dataclass(frozen=True)
class PictureSet:
    """The subject's pictures: those to train on, and those kept for scoring."""

    train: list[Picture]
    held_out: list[Picture]
    digest: str

    @property
    def count(self) -> int:
        """All of them."""
        return len(self.train) + len(self.held_out)


def is_picture_name(name: str) -> bool:
    """Whether a file name claims to be a picture; others beside (captions, read-me) are left alone."""
    return name.lower().endswith(SUFFIXES) and not name.startswith(".") and not is_mask_name(name)


def is_mask_name(name: str) -> bool:
    """Whether a file name is a mask's: `robot1.mask.png` is that of `robot1.png`."""
    return name.lower().endswith(MASK)


def is_dataset_name(name: str) -> bool:
    """Whether a file is part of a subject: a picture, a mask or a caption."""
    return is_picture_name(name) or (not name.startswith(".") and (is_mask_name(name) or name.endswith(CAPTION)))


def load_pictures(folder: Path, resolution: int, holdout: int, step: int | None = None) -> PictureSet:
    """The pictures in `folder` by name; the last `holdout` are held out, and square.

    `step`: those to train on keep their shape as far as sides that are multiples of it allow; None: they are square.
    Raises DatasetNotFound when there are none, DatasetInvalid with the name of one that cannot be used.
    """
    files = sorted(p for p in folder.iterdir() if p.is_file() and is_picture_name(p.name)) if folder.is_dir() else []
    if not files:
        raise DatasetNotFound("subject.images: there is no PNG, JPEG or WebP picture there")
    if holdout >= len(files):
        raise DatasetInvalid(
            f"subject.holdout: {holdout} of {len(files)} pictures held out leaves none to train on; "
            "lower it or add pictures"
        )
    beside = [_beside(p) for p in files]
    _check_beside(folder, files)
    digest = content_digest({p.name: entry_of_file(p).sha256 for group in beside for p in group})
    cut = len(files) - holdout
    train = [_picture(p, resolution, step) for p in files[:cut]]
    return PictureSet(train, [_picture(p, resolution, None) for p in files[cut:]], digest)


def _beside(picture: Path) -> list[Path]:
    """A picture's files: itself, and its caption and mask as far as they are there."""
    others = picture.with_suffix(CAPTION), picture.with_suffix(MASK)
    return [picture, *(path for path in others if path.is_file())]


def _check_beside(folder: Path, pictures: list[Path]) -> None:
    """Whether no two pictures claim one caption or mask, and no mask lacks its picture. Raises DatasetInvalid."""
    stems: dict[str, str] = {}
    for path in pictures:
        other = stems.setdefault(path.stem, path.name)
        if other != path.name and len(_beside(path)) > 1:
            raise DatasetInvalid(f"{path.name} and {other} would share {_beside(path)[1].name}: rename one of them")
    for path in sorted(folder.iterdir()):
        stem = path.name[: -len(MASK)]
        if is_mask_name(path.name) and not path.name.startswith(".") and stem not in stems:
            raise DatasetInvalid(f"{path.name}: there is no picture {stem} beside it")


def _picture(path: Path, resolution: int, step: int | None) -> Picture:
    image = decode(path, resolution)
    size = bucket(image.size, resolution, step) if step else (resolution, resolution)
    scale = max(size[0] / image.width, size[1] / image.height)
    cut = (round((image.height * scale - size[1]) / 2), round((image.width * scale - size[0]) / 2))
    mask = path.with_suffix(MASK)
    return Picture(
        path.name,
        fit(image, size),
        caption=_caption(path.with_suffix(CAPTION)),
        mask=_mask(mask, path, size) if mask.is_file() else None,
        original=(image.height, image.width),
        cut=cut,
    )


def _caption(path: Path) -> str | None:
    """The caption in `path`. Raises DatasetInvalid with its name."""
    if not path.is_file():
        return None
    try:
        text = " ".join(path.read_text(encoding="utf-8").split())
    except UnicodeDecodeError as e:
        raise DatasetInvalid(f"{path.name}: a caption must be UTF-8 text") from e
    if not text or len(text) > MAX_CAPTION:
        raise DatasetInvalid(f"{path.name}: a caption has 1 to {MAX_CAPTION} characters; remove the file to use none")
    return text


def _mask(path: Path, picture: Path, size: tuple[int, int]) -> Image.Image:
    """The mask in `path`, cut as its picture is. Raises DatasetInvalid with its name."""
    mask, image = decode(path).convert("L"), decode(picture)
    if mask.size != image.size:
        raise DatasetInvalid(
            f"{path.name}: {mask.width}×{mask.height}, but {picture.name} has {image.width}×{image.height}"
        )
    cut = ImageOps.fit(mask, size, Image.Resampling.BOX)
    if not np.asarray(cut).any():
        raise DatasetInvalid(f"{path.name}: nothing of it is white inside the part that is trained on")
    return cut


def decode(path: Path, resolution: int = MIN_SIDE) -> Image.Image:
    """The picture in `path`: upright RGB, whole. Raises DatasetInvalid with its name.

    A JPEG far larger than `resolution` is decoded at a fraction of its size, which is fast and exact enough.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return _decode(path, resolution)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as e:
        raise DatasetInvalid(f"{path.name}: too large: at most {MAX_PIXELS // 10**6} megapixels") from e
    except _UNREADABLE as e:
        if isinstance(e, Image.UnidentifiedImageError):
            raise DatasetInvalid(f"{path.name}: not a PNG, JPEG or WebP picture") from e
        raise DatasetInvalid(f"{path.name}: cannot be read to its end ({e})") from e


def _decode(path: Path, resolution: int) -> Image.Image:
    with Image.open(path, formats=_FORMATS) as image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise DatasetInvalid(f"{path.name}: {width}×{height}: at most {MAX_PIXELS // 10**6} megapixels")
        least = max(MIN_SIDE, resolution // 4)
        if min(width, height) < least:
            raise DatasetInvalid(f"{path.name}: {width}×{height} is too small: at least {least} pixels a side")
        if image.format == "JPEG" and image.mode == "RGB":
            image.draft("RGB", (2 * resolution, 2 * resolution))
        image.load()
        return _rgb(ImageOps.exif_transpose(image))


def _rgb(image: Image.Image) -> Image.Image:
    """`image` in RGB."""
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        values = np.asarray(image).astype(np.float64)
        # 16-bit files come as I;16 or, by some writers, as I; what fits 8 bits is taken as it is.
        scaled = values / 257 if values.max(initial=0) > 255 else values
        return Image.fromarray(scaled.clip(0, 255).round().astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def fit(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The middle of `image` in `size` (width, height), pixels."""
    return ImageOps.fit(image, size, Image.Resampling.LANCZOS)


def bucket(size: tuple[int, int], resolution: int, step: int) -> tuple[int, int]:
    """The width and height, multiples of `step`, in which a picture of `size` loses least.

    A bucket is as high as it can be for its width, or as wide for its height, with no more pixels than the square of
    `resolution` and no side above its double. Source: NovelAI, Improvements on Stable Diffusion (2022), aspect ratio
    bucketing.
    """
    longest = 2 * resolution // step * step
    pairs = [(side, min(longest, resolution**2 // side // step * step)) for side in range(step, longest + 1, step)]
    buckets = [pair for pair in pairs if pair[1]] + [pair[::-1] for pair in pairs if pair[1]]
    shape = math.log(size[0] / size[1])
    return min(buckets, key=lambda b: (round(abs(math.log(b[0] / b[1]) - shape), 6), -b[0] * b[1]))


def sheet(images: list[Image.Image], columns: int) -> Image.Image:
    """`images` of one size in rows of `columns`."""
    width, height = images[0].size
    rows = -(-len(images) // columns)
    page = Image.new("RGB", (columns * width, rows * height), "white")
    for index, image in enumerate(images):
        page.paste(image, ((index % columns) * width, (index // columns) * height))
    return page
