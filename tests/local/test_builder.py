"""What an image is built from."""

from pathlib import Path

import pytest

from dreambooth_local.builder import SOURCE_FOLDERS, SOURCES, source_hash, wheel_cache
from dreambooth_local.images import CHECKOUT


@pytest.fixture
def context(tmp_path):
    for name in SOURCES:
        (tmp_path / name).write_text(name)
    for folder in SOURCE_FOLDERS:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "code.py").write_text(folder)
    return tmp_path


def test_the_hash_is_short_and_stable(context):
    assert source_hash(context) == source_hash(context)
    assert len(source_hash(context)) == 8


@pytest.mark.parametrize("name", [*SOURCES, *(f"{folder}/code.py" for folder in SOURCE_FOLDERS)])
def test_every_source_counts(context, name):
    before = source_hash(context)
    (context / name).write_text("changed")
    assert source_hash(context) != before


def test_compiled_files_do_not_count(context):
    before = source_hash(context)
    (context / "server/__pycache__").mkdir()
    (context / "server/__pycache__/code.pyc").touch()
    assert source_hash(context) == before


def test_moving_a_byte_from_one_file_to_the_next_counts(context):
    first, second = context / "crds/a.py", context / "crds/b.py"
    first.write_text("xy")
    second.write_text("z")
    before = source_hash(context)
    first.write_text("x")
    second.write_text("yz")
    assert source_hash(context) != before


def test_the_builder_is_given_what_is_hashed_and_no_more():
    allowed = {line[1:] for line in (CHECKOUT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert allowed == {*SOURCE_FOLDERS, *SOURCES} - {"Dockerfile", ".dockerignore"}


@pytest.mark.parametrize(
    ("environ", "folder"),
    [
        ({}, Path.home() / ".cache/uv"),
        ({"XDG_CACHE_HOME": "/x"}, Path("/x/uv")),
        ({"XDG_CACHE_HOME": "/x", "UV_CACHE_DIR": "/wheels"}, Path("/wheels")),
    ],
)
def test_wheels_come_from_where_uv_keeps_them(environ, folder):
    assert wheel_cache(environ) == folder
