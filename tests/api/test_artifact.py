"""The digest names content; a manifest leads nowhere outside its folder."""

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreambooth_api import layout, names
from dreambooth_api.artifact import Manifest, ManifestEntry, content_digest, short_digest

HASHES = st.dictionaries(st.text(min_size=1), st.text("0123456789abcdef", min_size=64, max_size=64), max_size=6)
WEIGHTS = "ab" * 32


def test_the_rule_is_the_one_that_is_written_down():
    pairs = [["a.safetensors", WEIGHTS], ["b/config.json", "cd" * 32]]
    expected = hashlib.sha256(json.dumps(pairs, separators=(",", ":")).encode()).hexdigest()
    assert content_digest({path: digest for path, digest in reversed(pairs)}) == f"sha256:{expected}"
    # A fixed value: artifacts in stores carry it, so the rule can never change.
    assert content_digest({}) == "sha256:4f53cda18c2baa0c0354bb5f9a3ecbe5ed12ab4d8e11ba873c2f11161202b945"


@given(HASHES)
def test_order_does_not_matter_and_the_card_does_not_count(hashes):
    digest = content_digest(hashes)
    assert content_digest(dict(reversed(hashes.items()))) == digest
    assert content_digest({**hashes, names.MODEL_CARD: WEIGHTS, names.MANIFEST: WEIGHTS}) == digest


@given(HASHES, st.text(min_size=1))
def test_another_file_is_another_digest(hashes, path):
    if path in (names.MODEL_CARD, names.MANIFEST) or path in hashes:
        return
    assert content_digest({**hashes, path: WEIGHTS}) != content_digest(hashes)


def test_a_manifest_has_the_digest_and_size_of_its_files():
    entry = ManifestEntry(bytes=10, sha256=WEIGHTS)
    manifest = Manifest(files={"a": entry, "sub/b": entry})
    assert manifest.digest == content_digest({"a": WEIGHTS, "sub/b": WEIGHTS})
    assert manifest.total_bytes == 20
    assert Manifest.model_validate_json(manifest.model_dump_json(by_alias=True)) == manifest


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", "a/..", "..\\x", "", "x\0"])
def test_a_manifest_with_a_path_outside_its_folder_is_refused(path):
    with pytest.raises(ValueError, match="not a path inside"):
        Manifest.model_validate({"files": {path: {"bytes": 1, "sha256": WEIGHTS}}})


@pytest.mark.parametrize("entry", [{"bytes": -1, "sha256": WEIGHTS}, {"bytes": 1, "sha256": "ab"}, {"bytes": 1}])
def test_a_manifest_with_a_broken_entry_is_refused(entry):
    with pytest.raises(ValueError, match=r"files\.a"):
        Manifest.model_validate({"files": {"a": entry}})


def test_the_store_s_layout_is_design_s():
    digest = "sha256:0123456789abcdef" + "0" * 48
    assert short_digest(digest) == "0123456789abcdef"
    assert layout.prior_prefix(digest) == "priors/0123456789abcdef"
    assert layout.latents_prefix(digest) == "latents/0123456789abcdef"
    assert layout.checkpoint_prefix("demo", "robot", "u-1", 50) == "jobs/demo/robot/u-1/checkpoints/step-000050"
    assert layout.artifact_prefix("demo", "robot", digest) == "models/demo/robot/0123456789abcdef"
