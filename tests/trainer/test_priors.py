import copy
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from dreambooth_api.parse import parse_job_file
from dreambooth_trainer import priors
from dreambooth_trainer.config import resolve
from dreambooth_trainer.faults import DatasetInvalid
from dreambooth_trainer.manifests import CorruptFolder, get_manifest
from dreambooth_trainer.prepare import Inputs
from dreambooth_trainer.shard import Shard


@pytest.fixture(scope="module")
def loaded(tmp_path_factory, context, small_job) -> Inputs:
    """Inputs whose base is loaded once for all tests here."""
    inputs = Inputs(context(small_job(), tmp_path_factory.mktemp("inputs")))
    assert inputs.family
    return inputs


@pytest.fixture
def got(tmp_path: Path, loaded: Inputs, context, small_job) -> Inputs:
    inputs = copy.copy(loaded)
    inputs.ctx = context(small_job(), tmp_path / "out")
    return inputs


@pytest.fixture
def key(got: Inputs) -> str:
    return priors.key_of(got.base_digest, got.family.sampler_identity(), got.plan)


@pytest.fixture
def store(got: Inputs, key: str):
    return got.ctx.store.at(f"priors/{key.removeprefix('sha256:')[:16]}")


def test_drawn_committed_and_then_reused(got: Inputs, key: str, store) -> None:
    said: list[tuple[int, int]] = []
    status = priors.complete(got.ctx, key, got.plan, lambda: got.family, progress=lambda *p: said.append(p))
    assert (status.images, status.reused, status.uri) == (4, 0, store.uri)
    assert said == [(0, 4), (4, 4)]
    assert len(priors.load(got.ctx, key, 4)) == 4

    def never():
        raise AssertionError("nothing is to be drawn")

    assert priors.complete(got.ctx, key, got.plan, never).reused == 4


@pytest.mark.parametrize("pods", [1, 2])
@pytest.mark.parametrize("batch", [1, 4])
def test_defect_4_no_two_class_images_are_the_same(
    got: Inputs, key: str, store, monkeypatch, batch: int, pods: int
) -> None:
    """diffusers gave every rank the same generator: all of them made the same class images."""
    monkeypatch.setattr(priors, "batch_for", lambda resolution: batch)
    for index in reversed(range(pods)):
        whose = priors.complete if index == 0 else priors.draw_part
        whose(got.ctx, key, got.plan, lambda: got.family, Shard(index, pods))
    images = priors.load(got.ctx, key, 4)
    assert len({image.tobytes() for image in images}) == 4
    # Image i is that of seed + i, whoever drew it, and in whatever batch.
    (alone,) = priors.draw(got.family, got.plan, [3])
    assert np.abs(np.asarray(alone, int) - np.asarray(images[3], int)).max() <= 2


def test_an_image_is_the_same_in_any_batch(got: Inputs) -> None:
    one, two = priors.draw(got.family, got.plan, [2])[0], priors.draw(got.family, got.plan, [0, 1, 2])[2]
    assert np.abs(np.asarray(one, int) - np.asarray(two, int)).max() <= 2


@pytest.mark.parametrize("harm", ["uncommitted and partial", "spoilt", "cut off", "manifest cut off"])
def test_a_set_is_completed_not_redone(got: Inputs, key: str, store, harm: str) -> None:
    priors.complete(got.ctx, key, got.plan, lambda: got.family)
    whole = {name: store.read(name) for name in store.keys()}  # noqa: SIM118
    marked = store.root / "000000.png"
    before = marked.stat().st_mtime_ns
    match harm:
        case "uncommitted and partial":
            store.delete(["MANIFEST.json", "000003.png"])
        case "spoilt":
            store.write("000002.png", whole["000001.png"])
        case "cut off":
            store.delete(["MANIFEST.json"])
            store.write("000002.png", whole["000002.png"][:100])
        case "manifest cut off":
            store.write("MANIFEST.json", b"{")
    if harm != "cut off":
        with pytest.raises(CorruptFolder):
            priors.load(got.ctx, key, 4)
    status = priors.complete(got.ctx, key, got.plan, lambda: got.family)
    assert status.reused == (4 if harm == "manifest cut off" else 3)
    assert marked.stat().st_mtime_ns == before
    assert len(priors.load(got.ctx, key, 4)) == 4
    manifest = get_manifest(store)
    assert manifest is not None
    assert set(manifest.files) == {priors.file_name(i) for i in range(4)}


def test_pods_draw_a_share_each_and_the_first_commits(got: Inputs, key: str, store, monkeypatch) -> None:
    monkeypatch.setattr(priors, "LOOK", 0.05)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(priors.complete, got.ctx, key, got.plan, lambda: got.family, Shard(0, 2))
        while len(store.keys()) < 2:
            assert not first.done()
            time.sleep(0.01)
        # Only its own share, and no manifest without the other's.
        assert store.keys() == ["000000.png", "000002.png"]
        assert priors.draw_part(got.ctx, key, got.plan, lambda: got.family, Shard(1, 2)) == 2
        assert (first.result().images, first.result().reused) == (4, 0)
    assert len({image.tobytes() for image in priors.load(got.ctx, key, 4)}) == 4


def test_a_share_of_another_base_is_told(got: Inputs, key: str) -> None:
    priors.draw_part(got.ctx, "sha256:other", got.plan, lambda: got.family, Shard(1, 2))
    with pytest.raises(DatasetInvalid, match="it changed while"):
        priors.complete(got.ctx, key, got.plan, lambda: got.family, Shard(0, 2))


def test_what_another_job_drew_meanwhile_is_kept(got: Inputs, key: str, store) -> None:
    def family():
        store.write("000001.png", b"theirs")
        return got.family

    assert priors.draw_part(got.ctx, key, got.plan, family, Shard()) == 3
    assert store.read("000001.png") == b"theirs"


def test_more_images_extend_the_set(tmp_path: Path, context, small_job, got: Inputs, key: str) -> None:
    priors.complete(got.ctx, key, got.plan, lambda: got.family)
    more = Inputs(context(small_job(prior={"images": 6}), tmp_path / "out"))
    status = priors.complete(more.ctx, key, more.plan, lambda: got.family)
    assert (status.images, status.reused) == (6, 4)


@pytest.mark.parametrize(
    "change",
    [
        {"prior": {"prompt": "a {className}"}},
        {"prior": {"seed": 1}},
        {"prior": {"steps": 3}},
        {"prior": {"guidanceScale": 3.0}},
        {"training": {"resolution": 64}},
    ],
)
def test_the_key_follows_all_that_makes_an_image(small_job, got: Inputs, key: str, change: dict) -> None:
    plan = resolve(parse_job_file(small_job(**change)).spec, 32, "cpu")
    assert priors.key_of(got.base_digest, got.family.sampler_identity(), plan) != key
    assert priors.key_of("sha256:other", got.family.sampler_identity(), got.plan) != key


def test_the_key_does_not_follow_the_subject(small_job, got: Inputs, key: str) -> None:
    """A second subject of the class costs no class images."""
    images = {"images": {"uri": "s3://dreambooth/examples/subjects/cat"}, "identifier": "xyz"}
    plan = resolve(parse_job_file(small_job(subject=images)).spec, 32, "cpu")
    assert priors.key_of(got.base_digest, got.family.sampler_identity(), plan) == key
