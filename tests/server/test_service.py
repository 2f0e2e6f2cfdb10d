"""What a process does with its disk before it loads anything."""

import logging
import shutil
from pathlib import Path

import pytest
from server_kit import Made

from dreambooth_api.artifact import short_digest
from dreambooth_server.disk import remove
from dreambooth_server.faults import LoadFault
from dreambooth_server.service import Service
from dreambooth_server.settings import Places, Settings, SubjectSource


def test_a_folder_that_cannot_be_written_is_told_and_done_without(
    lora: Made, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    places = Places(store=tmp_path / "none", work=tmp_path / "work", lasting=tmp_path / "nothing")
    with caplog.at_level(logging.WARNING), pytest.raises(LoadFault, match="no artifact there"):
        Service(Settings((SubjectSource("/nowhere"),), places=places)).load()
    assert f"{tmp_path}/nothing cannot be written by user" in caplog.text


def test_a_subjects_files_stay_on_the_disk_as_long_as_it_is_served(lora: Made, tmp_path: Path) -> None:
    places = Places(store=tmp_path / "none", lasting=tmp_path)
    kept = Path(shutil.copytree(lora.folder, places.cache / "models" / short_digest(lora.digest)))
    subject = SubjectSource("s3://bucket/rusty", lora.digest)
    with pytest.raises(LoadFault, match="two subjects are named"):
        Service(Settings((subject, subject), places=places)).load()
    assert not remove(kept)
    assert kept.is_dir()
