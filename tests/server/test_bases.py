"""The base is the very one that was personalised."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub.errors import LocalEntryNotFoundError
from server_kit import write_card

from dreambooth_api.artifact import BaseReference
from dreambooth_api.reasons import Reason
from dreambooth_server.bases import fetch_base, open_base
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


def test_a_base_of_the_hub_is_kept_where_the_others_are(
    reference: BaseReference, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No hub can be here: its library is asked for the snapshot, and says what it was asked."""
    asked: list[tuple[str, Path | None, bool]] = []

    def snapshot_download(repository: str, *, cache_dir: Path | None, local_files_only: bool, **_: Any) -> str:
        asked.append((repository, cache_dir, local_files_only))
        if local_files_only and not (tmp_path / "cache/hub").exists():
            raise LocalEntryNotFoundError("nothing is here")
        if cache_dir is None:
            return str(base)
        return str(shutil.copytree(base, cache_dir / "snapshot", dirs_exist_ok=True))

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    fetch_base(reference, "hf://team/base", Places(store=tmp_path, work=tmp_path / "work"))
    (tmp_path / "cache").mkdir()
    places, hub = Places(store=tmp_path, lasting=tmp_path / "cache"), tmp_path / "cache/hub"
    assert fetch_base(reference, "hf://team/base", places) == hub / "snapshot"
    assert asked == [("team/base", None, False), ("team/base", hub, True), ("team/base", hub, False)]
    # By its digest it is had without the hub; whatever is there now, only with it.
    assert fetch_base(reference, "hf://team/base", places) == hub / "snapshot"
    assert asked[3:] == [("team/base", hub, True)]
    assert open_base("hf://team/base", None, places) == (hub / "snapshot", reference.digest)
    assert asked[4:] == [("team/base", hub, False)]


def test_a_pool_takes_whatever_is_there_and_says_what_it_is(
    reference: BaseReference, base: Path, places: Places
) -> None:
    assert open_base(f"file://{base}", None, places) == (base, reference.digest)
    with pytest.raises(LoadFault) as fault:
        open_base("file:///nowhere", None, places)
    assert fault.value.reason is Reason.BASE_MODEL_NOT_FOUND
