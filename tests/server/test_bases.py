"""The base is the very one that was personalised."""

import shutil
from pathlib import Path

import pytest
from server_kit import write_card

from dreambooth_api.artifact import BaseReference
from dreambooth_api.reasons import Reason
from dreambooth_server.bases import base_files, fetch_base, open_base
from dreambooth_server.faults import LoadFault
from dreambooth_server.settings import Places


@pytest.fixture
def reference(base: Path, tmp_path: Path) -> BaseReference:
    return write_card(tmp_path, base).base


def test_the_cards_base_is_found_and_verified(reference: BaseReference, base: Path, places: Places) -> None:
    assert fetch_base(reference, None, places) == base


def test_it_may_have_moved(reference: BaseReference, base: Path, tmp_path: Path, places: Places) -> None:
    moved = Path(shutil.copytree(base, tmp_path / "moved"))
    gone = reference.model_copy(update={"uri": "file:///nowhere"})
    assert fetch_base(gone, str(moved), places) == moved


def test_another_base_is_refused(reference: BaseReference, base: Path, tmp_path: Path, places: Places) -> None:
    other = Path(shutil.copytree(base, tmp_path / "other"))
    config = other / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text().replace("v_prediction", "epsilon"))
    with pytest.raises(LoadFault, match="is another base") as fault:
        fetch_base(reference, str(other), places)
    assert fault.value.reason is Reason.BASE_MODEL_INVALID


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("file:///nowhere", Reason.BASE_MODEL_NOT_FOUND),
        ("pvc://claim/base", Reason.BASE_MODEL_NOT_FOUND),
        ("s3://bucket/base", Reason.STORE_UNAVAILABLE),
        ("hf://nobody/nothing", Reason.STORE_UNAVAILABLE),
        ("ftp://host/base", Reason.BASE_MODEL_INVALID),
    ],
)
def test_a_base_that_is_not_there(reference: BaseReference, places: Places, uri: str, reason: Reason) -> None:
    with pytest.raises(LoadFault) as fault:
        fetch_base(reference, uri, places)
    assert fault.value.reason is reason


def test_a_pool_takes_whatever_is_there_and_says_what_it_is(
    reference: BaseReference, base: Path, places: Places
) -> None:
    assert open_base(f"file://{base}", None, places) == (base, reference.digest)
    with pytest.raises(LoadFault) as fault:
        open_base("file:///nowhere", None, places)
    assert fault.value.reason is Reason.BASE_MODEL_NOT_FOUND


def test_its_files_are_configs_vocabularies_and_safetensors() -> None:
    names = ["model_index.json", "unet/a.safetensors", "unet/a.bin", "tokenizer/merges.txt", ".git/x.json", "README.md"]
    assert base_files(names) == ["model_index.json", "unet/a.safetensors", "tokenizer/merges.txt"]
