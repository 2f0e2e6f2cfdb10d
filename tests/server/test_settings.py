"""Where downloads are kept."""

from pathlib import Path

import pytest

from dreambooth_server.settings import Places


def test_they_are_kept_in_the_folder_that_lasts_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DREAMBOOTH_WORK_DIR", str(tmp_path / "work"))
    assert Places().cache == tmp_path / "work/serving"
    monkeypatch.setenv("DREAMBOOTH_CACHE_DIR", str(tmp_path / "cache"))
    assert (Places().cache, Places().lasts) == (tmp_path / "work/serving", False)
    (tmp_path / "cache").mkdir()
    assert (Places().cache, Places().lasts) == (tmp_path / "cache", True)
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert (Places().cache, Places().lasts) == (tmp_path / "work/serving", False)
