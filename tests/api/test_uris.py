"""URIs are taken apart exactly, and none leads out of its root."""

import pytest

from dreambooth_api.uris import Uri, mounted_path, parse_uri


@pytest.mark.parametrize(
    ("text", "parts", "path"),
    [
        ("s3://bucket/a/b/", Uri("s3", "bucket", "a/b"), None),
        ("hf://owner/name", Uri("hf", "owner", "name"), None),
        ("pvc://claim", Uri("pvc", "claim", ""), "/mnt/pvc/claim"),
        ("pvc://claim/a/b", Uri("pvc", "claim", "a/b"), "/mnt/pvc/claim/a/b"),
        ("configMap://pictures", Uri("configMap", "pictures", ""), "/mnt/configmap/pictures"),
        ("file:///var/x", Uri("file", "", "var/x"), "/var/x"),
    ],
)
def test_uris_are_taken_apart(text, parts, path):
    assert parse_uri(text) == parts
    assert mounted_path(parts) == path


@pytest.mark.parametrize("text", ["", "bucket/a", "/a/b", "://a", "s3:/bucket/a"])
def test_what_has_no_scheme_is_refused(text):
    with pytest.raises(ValueError, match="is not a URI"):
        parse_uri(text)


@pytest.mark.parametrize("text", ["pvc://claim/../x", "s3://b/a/..", "file:///a/../../etc/passwd"])
def test_climbing_out_is_refused(text):
    with pytest.raises(ValueError, match="climbs out"):
        parse_uri(text)


@pytest.mark.parametrize("text", ["s3://bucket/a", "hf://owner/name", "pvc://claim/a", "configMap://x"])
def test_a_uri_is_written_as_it_was_read(text):
    assert str(parse_uri(text)) == text
