"""Class images: drawn once by the base, kept under the hash of all that makes them, shared by every job that fits.

Image i is drawn with seed + i by a generator of its own, so any part of a set can be drawn by any rank, in any batch
and at any time. What is there is kept; what lacks is drawn; the manifest is written when the set is whole.
"""

import contextlib
import io
import json
import time
from collections.abc import Callable, Iterable

from PIL import Image

from dreambooth_api import layout
from dreambooth_api.artifact import Manifest, ManifestEntry, content_digest
from dreambooth_api.job import PriorStatus
from dreambooth_api.names import MANIFEST, SHARDS
from dreambooth_trainer import keys
from dreambooth_trainer.config import Plan
from dreambooth_trainer.context import Context
from dreambooth_trainer.family import Family, batch_for
from dreambooth_trainer.faults import DatasetInvalid
from dreambooth_trainer.manifests import CorruptFolder, dump, entry_of, get_manifest
from dreambooth_trainer.shard import Shard
from dreambooth_trainer.store import Missing, Store

# How often the other pods' shares are looked after, seconds.
LOOK = 2.0


def key_of(base_digest: str, sampler: dict, plan: Plan) -> str:
    """`sha256:<hex>` over all that makes an image, save its index. More images of the same key extend the set."""
    prior = plan.spec.prior
    return keys.key_of(
        base_digest, plan.class_prompt, sampler, prior.steps, prior.guidance_scale, plan.resolution, prior.seed
    )


def file_name(index: int) -> str:
    """Of class image `index`."""
    return f"{index:06d}.png"


def lacking(store: Store, indices: Iterable[int]) -> list[int]:
    """Those of `indices` whose image is not there, is not what the manifest says or, without one, cannot be read."""
    manifest = _manifest(store)
    known = manifest.files if manifest else {}
    there = set(store.keys())
    return [
        index
        for index in indices
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
    shard: Shard = Shard(),
    progress: Callable[[int, int], None] = lambda done, count: None,
) -> PriorStatus:
    """Draw what lacks, then commit; `family` is called only if something is to be drawn.

    Of several pods the first does this: its share, then it waits for the others' shares. Raises DatasetInvalid.
    """
    store, count = ctx.store.at(layout.prior_prefix(key)), plan.spec.prior.images
    drawn = draw_part(ctx, key, plan, family, shard, progress)
    if shard.count > 1:
        drawn += _await_shards(ctx, key, shard.count, lambda: progress(len(_there(store, count)), count))
        # What somebody took away meanwhile.
        drawn += draw_part(ctx, key, plan, family, Shard(), progress)
    manifest = _manifest(store)
    if drawn or manifest is None or not manifest.files.keys() >= set(map(file_name, range(count))):
        commit(store)
    return PriorStatus(uri=store.uri, images=count, reused=max(0, count - drawn))


def draw_part(
    ctx: Context,
    key: str,
    plan: Plan,
    family: Callable[[], Family],
    shard: Shard,
    progress: Callable[[int, int], None] = lambda done, count: None,
) -> int:
    """Draw what lacks of a share, and say in the job's folder that it is done; how many images were drawn."""
    store, count = ctx.store.at(layout.prior_prefix(key)), plan.spec.prior.images
    # Looked at in this order: what another job draws in between is neither missed nor taken for spoilt.
    there = _there(store, count)
    absent = lacking(store, shard.part(count))
    # What is spoilt must not pass for what another job has just drawn.
    spoilt = there.intersection(map(file_name, absent))
    store.delete(spoilt)
    there -= spoilt
    progress(len(there), count)
    batch, drawn = batch_for(plan.resolution), 0
    for start in range(0, len(absent), batch):
        part = absent[start : start + batch]
        images = draw(family(), plan, part)
        # Another job may be drawing the same set: its bits may differ in the last place, and are as good.
        there |= _there(store, count)
        for index, image in zip(part, images, strict=True):
            if file_name(index) not in there:
                store.write(file_name(index), png(image))
                drawn += 1
        there.update(map(file_name, part))
        progress(len(there), count)
    if shard.index:
        ctx.job_store.write(_marker(shard.index), json.dumps({"key": key, "drawn": drawn}).encode())
    return drawn


def _there(store: Store, count: int) -> set[str]:
    """Names of the first `count` images that are in the store."""
    return set(map(file_name, range(count))).intersection(store.keys())


def _marker(index: int) -> str:
    return f"{SHARDS}/{index:03d}"


def _await_shards(ctx: Context, key: str, count: int, look: Callable[[], None]) -> int:
    """Until the other pods are done; how many images they drew.

    A pod that fails is run again by its Job, or the Job fails and this one is ended too.
    """
    waiting, drawn = set(range(1, count)), 0
    while waiting:
        look()
        for index in list(waiting):
            with contextlib.suppress(Missing):
                said = json.loads(ctx.job_store.read(_marker(index)))
                if said["key"] != key:
                    raise DatasetInvalid("baseModel: it changed while its class images were drawn: make a new job")
                waiting.remove(index)
                drawn += said["drawn"]
        if waiting:
            time.sleep(LOOK)
    return drawn


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


def digest(ctx: Context, key: str, count: int) -> str:
    """`sha256:<hex>` over the first `count` class images, as their manifest has them. Raises CorruptFolder."""
    files = _listed(ctx.store.at(layout.prior_prefix(key)), count)
    return content_digest({name: files[name].sha256 for name in map(file_name, range(count))})


def load(ctx: Context, key: str, count: int) -> list[Image.Image]:
    """The first `count` class images, each verified. Raises CorruptFolder."""
    store, images = ctx.store.at(layout.prior_prefix(key)), []
    files = _listed(store, count)
    for name in map(file_name, range(count)):
        try:
            data = store.read(name)
        except Missing as e:
            raise CorruptFolder(f"{store.uri}/{name} is missing") from e
        if entry_of(data) != files[name]:
            raise CorruptFolder(f"{store.uri}/{name} is not what its manifest says")
        with Image.open(io.BytesIO(data)) as image:
            images.append(image.convert("RGB"))
    return images


def _listed(store: Store, count: int) -> dict[str, ManifestEntry]:
    """The manifest's files, among them the first `count` images. Raises CorruptFolder."""
    manifest = get_manifest(store)
    if manifest is None:
        raise CorruptFolder(f"{store.uri} is not whole")
    for name in map(file_name, range(count)):
        if name not in manifest.files:
            raise CorruptFolder(f"{store.uri} lacks {name}")
    return dict(manifest.files)


def png(image: Image.Image) -> bytes:
    """`image` as PNG."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()
