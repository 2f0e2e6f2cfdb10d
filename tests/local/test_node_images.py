"""What the node says of its images, and which references are left over."""

from dreambooth_local.node_images import parse_names, stale_references

LISTING = """REF TYPE DIGEST SIZE PLATFORMS LABELS
docker.io/dreambooth/server:0.1.0 application/vnd.oci.image.manifest.v1+json sha256:m2 6.4 GiB linux/amd64 -
sha256:i2                         application/vnd.oci.image.manifest.v1+json sha256:m2 6.4 GiB linux/amd64 -
sha256:i1                         application/vnd.oci.image.manifest.v1+json sha256:m1 6.4 GiB linux/amd64 -
sha256:i0                         application/vnd.oci.image.manifest.v1+json sha256:m0 6.4 GiB linux/amd64 -
"""


def test_names_are_read_with_their_manifests():
    held = parse_names(LISTING)
    assert held["docker.io/dreambooth/server:0.1.0"] == held["sha256:i2"] == "sha256:m2"
    assert len(held) == 4
    assert parse_names("REF TYPE DIGEST\n") == {}


def test_a_reference_without_a_name_is_stale_unless_a_pod_runs_from_it():
    assert stale_references(parse_names(LISTING), used=set()) == ["sha256:i1", "sha256:i0"]
    assert stale_references(parse_names(LISTING), used={"sha256:i1"}) == ["sha256:i0"]


def test_a_name_is_never_stale():
    assert stale_references({"docker.io/library/python:3": "sha256:m"}, used=set()) == []
