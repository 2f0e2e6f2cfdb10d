"""The archives that are written without a builder, read back by the letter of the OCI image format."""

import hashlib
import io
import json
import tarfile

import pytest

from dreambooth_local.oci import SmallImage, write_archive, write_small

NAME = "docker.io/dreambooth/small:1"


@pytest.fixture
def image(tmp_path):
    program, pages = tmp_path / "program", tmp_path / "pages"
    program.write_bytes(b"#!/bin/true\n")
    program.chmod(0o700)
    (pages / "deep").mkdir(parents=True)
    (pages / "deep/index.html").write_text("<p>")
    return SmallImage(
        NAME,
        {"/usr/bin/program": program, "/pages": pages},
        ["/usr/bin/program"],
        ["serve"],
        links={"/bin/p": "/usr/bin/program"},
    )


def unpack(path):
    with tarfile.open(path) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar if m.isfile()}


def blob(files, descriptor):
    """A blob by its descriptor, with digest and size checked."""
    kind, _, value = descriptor["digest"].partition(":")
    data = files[f"blobs/{kind}/{value}"]
    assert hashlib.sha256(data).hexdigest() == value
    assert len(data) == descriptor["size"]
    return data


def test_every_digest_and_size_is_true(image, tmp_path):
    write_small(tmp_path / "image.tar", image, "amd64")
    files = unpack(tmp_path / "image.tar")
    assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    (entry,) = json.loads(files["index.json"])["manifests"]
    assert entry["annotations"]["io.containerd.image.name"] == NAME
    manifest = json.loads(blob(files, entry))
    config = json.loads(blob(files, manifest["config"]))
    (layer,) = manifest["layers"]
    content = blob(files, layer)
    assert config["rootfs"]["diff_ids"] == ["sha256:" + hashlib.sha256(content).hexdigest()]
    assert config["architecture"] == "amd64"
    assert config["config"]["Entrypoint"] == ["/usr/bin/program"]
    assert config["config"]["Cmd"] == ["serve"]
    assert config["config"]["User"] == "65532:65532"


def test_the_layer_holds_files_folders_and_links_owned_by_root(image, tmp_path):
    write_small(tmp_path / "image.tar", image, "amd64")
    files = unpack(tmp_path / "image.tar")
    manifest = json.loads(blob(files, json.loads(files["index.json"])["manifests"][0]))
    with tarfile.open(fileobj=io.BytesIO(blob(files, manifest["layers"][0]))) as tar:
        held = {member.name: member for member in tar}
    assert held["usr/bin/program"].mode == 0o755
    assert held["pages/deep/index.html"].mode == 0o644
    assert held["tmp"].mode == 0o1777
    assert held["bin/p"].linkname == "/usr/bin/program"
    assert held["etc/passwd"].isfile()
    assert {(m.uid, m.gid, m.mtime) for m in held.values()} == {(0, 0, 0)}
    seen = list(held)
    assert seen.index("usr") < seen.index("usr/bin") < seen.index("usr/bin/program")  # parents first
    assert len(seen) == len(set(seen))


def test_the_same_files_give_the_same_bytes(image, tmp_path):
    for name in ("one.tar", "two.tar"):
        write_small(tmp_path / name, image, "amd64")
        (tmp_path / "program").touch()  # times do not count
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()


def test_an_archive_may_leave_out_layers_that_the_node_has(tmp_path):
    write_archive(tmp_path / "image.tar", NAME, b"{}", [("sha256:" + "a" * 64, 7)], [])
    files = unpack(tmp_path / "image.tar")
    manifest = json.loads(blob(files, json.loads(files["index.json"])["manifests"][0]))
    assert manifest["layers"][0]["size"] == 7
    assert len([name for name in files if name.startswith("blobs/")]) == 2  # manifest and configuration
