"""An image's tag names what it was built from; the bookkeeping of what was built."""

import json
import shutil

import pytest

from dreambooth_local import images
from dreambooth_local.builder import SOURCE_FOLDERS, SOURCES
from dreambooth_local.places import Places


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of what images are made of."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in SOURCES:
        shutil.copy(images.CHECKOUT / name, copy / name)
    for folder in SOURCE_FOLDERS:
        shutil.copytree(images.CHECKOUT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def test_the_tag_changes_with_a_source_and_comes_back_with_it(checkout):
    before = images.tag(checkout)
    source = checkout / "operator/dreambooth_operator/__init__.py"
    text = source.read_text()
    source.write_text(text + "# another\n")
    assert images.tag(checkout) != before
    source.write_text(text)
    assert images.tag(checkout) == before


def test_a_new_and_a_renamed_file_change_the_tag(checkout):
    before = images.tag(checkout)
    new = checkout / "crds/dreambooth_api/new.py"
    new.write_text("x = 1\n")
    first = images.tag(checkout)
    renamed = new.rename(new.with_name("newer.py"))
    assert len({before, first, images.tag(checkout)}) == 3
    renamed.unlink()
    assert images.tag(checkout) == before


def test_what_is_in_no_image_does_not_change_the_tag(checkout):
    before = images.tag(checkout)
    compiled = checkout / "trainer/dreambooth_trainer/__pycache__"
    compiled.mkdir()
    (compiled / "loop.cpython-311.pyc").write_bytes(b"\0")
    (checkout / "tests").mkdir()
    (checkout / "tests/test_x.py").touch()
    assert images.tag(checkout) == before


def test_an_image_has_the_releases_name_and_one_of_its_sources(checkout):
    by_source, by_release = images.names("server", checkout)
    assert by_release == "docker.io/dreambooth/server:0.1.0"
    assert by_source == f"docker.io/dreambooth/server:{images.tag(checkout)}"


def test_helm_values_name_the_last_build(tmp_path, monkeypatch):
    monkeypatch.setenv("DREAMBOOTH_CACHE", str(tmp_path))
    assert images.image_values() == {}
    (tmp_path / "images").mkdir()
    record = {"operator": ["docker.io/dreambooth/operator:0.1.0-abc", "docker.io/dreambooth/operator:0.1.0"]}
    (tmp_path / "images/built.json").write_text(json.dumps(record))
    assert images.image_values() == {"images.operator.tag": "0.1.0-abc"}


def test_a_record_that_was_cut_short_counts_as_none(tmp_path):
    where = Places(tmp_path, tmp_path)
    where.images.mkdir()
    (where.images / "built.json").write_text('{"operator": [')
    assert images.built(where) == {}


def test_ids_of_images_are_read_from_pods_of_every_phase():
    pods = {
        "items": [
            {"status": {}},
            {
                "status": {
                    "initContainerStatuses": [{"imageID": "sha256:a"}],
                    "containerStatuses": [{"imageID": "sha256:b"}, {"imageID": ""}],
                }
            },
        ]
    }
    assert images.image_ids(pods) == {"sha256:a", "sha256:b", ""}
