"""Layers of the builder's store under the names of the node's."""

import base64
import hashlib
import json
from pathlib import Path

import pytest

from dreambooth_local.adoption import can_link, chain_ids, read_store, snapshot_directory

A, B, C = ("sha256:" + letter * 64 for letter in "abc")


def sha(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def test_chain_ids_follow_the_specification():
    assert chain_ids([]) == []
    assert chain_ids([A]) == [A]
    assert chain_ids([A, B, C]) == [A, sha(f"{A} {B}"), sha(f"{sha(f'{A} {B}')} {C}")]


@pytest.mark.parametrize(
    ("mounts", "directory"),
    [
        ("mount -t overlay overlay /mnt -o index=off,workdir=/s/7/work,upperdir=/s/7/fs,lowerdir=/s/1/fs", "/s/7/fs"),
        ("mount -t bind /s/1/fs /mnt -o rw,rbind", "/s/1/fs"),
    ],
)
def test_the_writable_directory_of_a_snapshot(mounts, directory):
    assert snapshot_directory(mounts) == Path(directory)


@pytest.fixture
def storage(tmp_path):
    """The files of containers-storage that are read, as buildah writes them."""
    for folder in ("overlay-images/id1", "overlay-layers"):
        (tmp_path / folder).mkdir(parents=True)
    images = [{"id": "id0", "layer": "top"}, {"id": "id1", "names": ["docker.io/x/y:1"], "layer": "top"}]
    layers = [
        {"id": "top", "parent": "low", "diff-digest": B, "diff-size": 20},
        {"id": "low", "diff-digest": A, "diff-size": 10},
    ]
    (tmp_path / "overlay-images/images.json").write_text(json.dumps(images))
    (tmp_path / "overlay-layers/layers.json").write_text(json.dumps(layers))
    key = base64.b64encode(b"sha256:id1").decode()
    (tmp_path / f"overlay-images/id1/={key}").write_bytes(b'{"os": "linux"}')
    return tmp_path


def test_an_image_is_read_with_its_layers_from_the_lowest_up(storage):
    image = read_store(storage, "docker.io/x/y:1")
    assert image.config == b'{"os": "linux"}'
    assert [(layer.diff_id, layer.size) for layer in image.layers] == [(A, 10), (B, 20)]
    assert image.layers[0].files == storage / "overlay/low/diff"


def test_an_unknown_name_is_an_error_that_names_it(storage):
    with pytest.raises(KeyError, match="x/z"):
        read_store(storage, "docker.io/x/z:1")


def test_files_can_be_linked_within_one_file_system(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    assert can_link(source, target)
    assert not can_link(source, Path("/proc"))
    assert list(source.iterdir()) == list(target.iterdir()) == []
