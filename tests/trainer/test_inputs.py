import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dreambooth_trainer.base import base_digest, check_family, native_resolution
from dreambooth_trainer.context import Mirror
from dreambooth_trainer.faults import BaseModelInvalid, BaseModelNotFound, DatasetNotFound, SpecFault
from dreambooth_trainer.inputs import fetch_base, fetch_encoder, fetch_pictures


@pytest.fixture
def base(tmp_path: Path, examples: Path) -> Path:
    shutil.copytree(examples / "base", tmp_path / "base")
    return tmp_path / "base"


def test_the_example_base_is_whole(base: Path) -> None:
    check_family(base)
    assert native_resolution(base) == 32


@pytest.mark.parametrize("part", ["unet", "text_encoder", "vae", "tokenizer", "scheduler"])
def test_a_missing_part_is_named(base: Path, part: str) -> None:
    shutil.rmtree(base / part)
    with pytest.raises(BaseModelInvalid, match=part):
        check_family(base)


def test_pickles_are_refused(base: Path) -> None:
    (base / "unet" / "diffusion_pytorch_model.safetensors").rename(base / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(BaseModelInvalid, match=r"diffusion_pytorch_model\.bin is a pickle"):
        check_family(base)


def test_another_family_is_refused(base: Path) -> None:
    index = base / "model_index.json"
    index.write_text(index.read_text().replace("StableDiffusionPipeline", "FluxPipeline"))
    with pytest.raises(BaseModelInvalid, match="FluxPipeline"):
        check_family(base)


def test_the_digest_is_of_content(base: Path) -> None:
    before = base_digest(base)
    (base / "README.md").write_text("no part of it")
    assert base_digest(base) == before
    (base / "scheduler" / "scheduler_config.json").write_text("{}")
    assert base_digest(base) != before


def test_a_mirror_goes_by_whole_folders(tmp_path: Path) -> None:
    mirror = Mirror("s3://dreambooth/examples", tmp_path)
    assert mirror.find("s3://dreambooth/examples/robot/images") == tmp_path / "robot/images"
    assert mirror.find("s3://dreambooth/examples-old/robot") is None


NOTHING = [
    ("s3://dreambooth/examples/nothing", "mirrored"),
    ("s3://elsewhere/pictures", "local-mirror"),
    ("pvc://claim/pictures", "there is nothing at"),
]


@pytest.mark.parametrize(("uri", "message"), NOTHING)
@pytest.mark.parametrize(
    ("what", "fetch", "fault"),
    [("images", fetch_pictures, DatasetNotFound), ("base", fetch_base, BaseModelNotFound)],
)
def test_nothing_there(
    tmp_path: Path, small_job, context, uri: str, message: str, what: str, fetch: Callable, fault: type[Exception]
) -> None:
    spec = {"subject": {"images": {"uri": uri}}} if what == "images" else {"baseModel": {"uri": uri}}
    with pytest.raises(fault, match=message):
        fetch(context(small_job(**spec), tmp_path))


def test_a_folder_that_is_no_model(tmp_path: Path, small_job, context) -> None:
    ctx = context(small_job(baseModel={"uri": "s3://dreambooth/examples/robot"}), tmp_path)
    with pytest.raises(BaseModelNotFound, match=r"model_index\.json"):
        fetch_base(ctx)
    with pytest.raises(SpecFault, match=r"scoring\.clip"):
        fetch_encoder(ctx, "s3://dreambooth/examples/robot", "scoring.clip")


@pytest.mark.cluster
def test_from_a_real_bucket(tmp_path: Path, small_job, context, examples: Path, s3) -> None:
    robot, base = s3.bucket_at("bucket", "in/robot"), s3.bucket_at("bucket", "in/base")
    for path in (examples / "robot" / "images").iterdir():
        robot.upload(path.name, path)
    for path in (examples / "base").rglob("*"):
        if path.is_file():
            base.upload(path.relative_to(examples / "base").as_posix(), path)
    base.write("unet/old.bin", b"a pickle")
    body = small_job(subject={"images": {"uri": "s3://bucket/in/robot/"}}, baseModel={"uri": "s3://bucket/in/base"})
    ctx = context(body, tmp_path, store=s3, mirror=None)
    assert len(list(fetch_pictures(ctx).glob("*.png"))) == 5
    assert base_digest(fetch_base(ctx)) == base_digest(examples / "base")
    gone = context(small_job(subject={"images": {"uri": "s3://not-there/x"}}), tmp_path, store=s3, mirror=None)
    with pytest.raises(DatasetNotFound, match="not-there"):
        fetch_pictures(gone)
