"""Class images: drawn once by the base, kept under the hash of all that makes them, shared by every job that fits.

Image i is drawn with seed + i by a generator of its own, so any part of a set can be drawn by any rank, in any batch
and at any time. What is there is kept; what lacks is drawn; the manifest is written when the set is whole.
"""

import hashlib
import io
import json
from collections.abc import Callable

from PIL import Image

from dreambooth_api import layout
from dreambooth_api.artifact import Manifest, ManifestEntry
from dreambooth_api.job import PriorStatus
from dreambooth_api.names import MANIFEST
from dreambooth_trainer.config import Plan
from dreambooth_trainer.context import Context
from dreambooth_trainer.family import Family, batch_for
from dreambooth_trainer.manifests import CorruptFolder, dump, entry_of, get_manifest
from dreambooth_trainer.store import Store


def key_of(base_digest: str, sampler: dict, plan: Plan) -> str:
    """`sha256:<hex>` over all that makes an image, save its index. More images of the same key extend the set."""
    prior = plan.spec.prior
    parts = [base_digest, plan.class_prompt, sampler, prior.steps, prior.guidance_scale, plan.resolution, prior.seed]
    return "sha256:" + hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def file_name(index: int) -> str:
    """Of class image `index`."""
    return f"{index:06d}.png"


def lacking(store: Store, count: int) -> list[int]:
    """Indices below `count` whose image is not there, is not what the manifest says or, without one, cannot be read."""
    manifest = _manifest(store)
    known = manifest.files if manifest else {}
    there = set(store.keys())
    return [
        index
        for index in range(count)
        if file_name(index) not in there or not _is_good(store.read(file_name(index)), known.get(file_name(index)))
    ]


def _manifest(store: Store) -> Manifest | None:
    """The manifest; one that cannot be read counts as none, and is written again."""
    try:
        return get_manifest(store)
    except CorruptFolder:
        return None


def _is_good(data: bytes, entry: ManifestEntry | None) -> bool:
    if entry is not None:
        return entry_of(data) == entry
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            image.load()
    except (OSError, SyntaxError, ValueError):
        return False
    return True


def complete(
    ctx: Context,
    key: str,
    plan: Plan,
    family: Callable[[], Family],
    progress: Callable[[int, int], None] = lambda done, count: None,
) -> PriorStatus:
    """Draw what lacks, then commit. `family` is called only if something is to be drawn."""
    store, count = ctx.store.at(layout.prior_prefix(key)), plan.spec.prior.images
    absent = lacking(store, count)
    done = count - len(absent)
    progress(done, count)
    batch = batch_for(plan.resolution)
    for start in range(0, len(absent), batch):
        part = absent[start : start + batch]
        for index, image in zip(part, draw(family(), plan, part), strict=True):
            store.write(file_name(index), png(image))
        done += len(part)
        progress(done, count)
    if absent or _manifest(store) is None:
        commit(store)
    return PriorStatus(uri=store.uri, images=count, reused=count - len(absent))


def draw(family: Family, plan: Plan, indices: list[int]) -> list[Image.Image]:
    """Class images by index."""
    prior = plan.spec.prior
    return family.draw(
        [plan.class_prompt] * len(indices),
        [prior.seed + index for index in indices],
        steps=prior.steps,
        guidance=prior.guidance_scale,
        resolution=plan.resolution,
    )


def commit(store: Store) -> Manifest:
    """Write the manifest of every image that is there."""
    names = [name for name in store.keys() if name != MANIFEST]  # noqa: SIM118 a Store is no dict
    manifest = Manifest(files={name: entry_of(store.read(name)) for name in names})
    store.write(MANIFEST, dump(manifest))
    return manifest


def load(ctx: Context, key: str, count: int) -> list[Image.Image]:
    """The first `count` class images, each verified. Raises CorruptFolder."""
    store = ctx.store.at(layout.prior_prefix(key))
    manifest = get_manifest(store)
    if manifest is None:
        raise CorruptFolder(f"{store.uri} is not whole")
    images = []
    for name in map(file_name, range(count)):
        if name not in manifest.files:
            raise CorruptFolder(f"{store.uri} lacks {name}")
        data = store.read(name)
        if entry_of(data) != manifest.files[name]:
            raise CorruptFolder(f"{store.uri}/{name} is not what its manifest says")
        with Image.open(io.BytesIO(data)) as image:
            images.append(image.convert("RGB"))
    return images


def png(image: Image.Image) -> bytes:
    """`image` as PNG."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()
