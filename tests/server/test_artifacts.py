"""Artifacts: what is taken, and why another is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from server_kit import Made, write_card, write_manifest

from dreambooth_api.names import MANIFEST, MODEL_CARD
from dreambooth_api.reasons import Reason
from dreambooth_server.artifacts import LORA_WEIGHTS, fetch_artifact
from dreambooth_server.faults import LoadFault
from dreambooth_server.settings import Places, SubjectSource


def test_a_folder_a_file_uri_and_a_runs_folder_are_one_artifact(lora: Made, tmp_path: Path, places: Places) -> None:
    shutil.copytree(lora.folder, tmp_path / "out" / "artifact")
    for uri in (str(lora.folder), f"file://{lora.folder}", str(tmp_path / "out")):
        artifact = fetch_artifact(SubjectSource(uri, lora.digest), places)
        assert (artifact.name, artifact.digest, artifact.card.identifier) == ("rusty", lora.digest, "sks")


def test_the_command_line_may_name_the_subject(lora: Made, places: Places) -> None:
    assert fetch_artifact(SubjectSource(str(lora.folder), name="bolt"), places).name == "bolt"


def flip_a_byte(folder: Path) -> None:
    path = folder / LORA_WEIGHTS
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def spoil_manifest(folder: Path) -> None:
    (folder / MANIFEST).write_text('{"files": {"a": {"bytes": -1}}}')


def climb_out(folder: Path) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"]["../../etc/passwd"] = {"bytes": 1, "sha256": "0" * 64}
    (folder / MANIFEST).write_text(json.dumps(manifest))


SPOILED: list[tuple[Callable[[Path], object], Reason, str]] = [
    (flip_a_byte, Reason.ARTIFACT_INVALID, "differs from its SHA-256"),
    (lambda f: (f / LORA_WEIGHTS).unlink(), Reason.ARTIFACT_INVALID, "is missing"),
    (lambda f: (f / MANIFEST).unlink(), Reason.ARTIFACT_NOT_FOUND, "no artifact there"),
    (lambda f: shutil.rmtree(f), Reason.ARTIFACT_NOT_FOUND, "no artifact there"),
    (spoil_manifest, Reason.ARTIFACT_INVALID, "Manifest files.a.bytes"),
    (climb_out, Reason.ARTIFACT_INVALID, "not a path inside the folder"),
    (lambda f: (f / "unet.bin").touch(), Reason.ARTIFACT_INVALID, "is a pickle"),
    (lambda f: (f / "extra.safetensors").touch(), Reason.ARTIFACT_INVALID, "not in the manifest"),
    (lambda f: (f / MODEL_CARD).write_text("{}"), Reason.ARTIFACT_INVALID, "model.json"),
]


@pytest.mark.parametrize(("spoil", "reason", "message"), SPOILED)
def test_a_spoiled_artifact_is_refused(
    copy_of_lora: Path, lora: Made, places: Places, spoil: Callable[[Path], object], reason: Reason, message: str
) -> None:
    spoil(copy_of_lora)
    with pytest.raises(LoadFault, match=message) as fault:
        fetch_artifact(SubjectSource(str(copy_of_lora), lora.digest), places)
    assert fault.value.reason is reason


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"family": "flux"}, "family 'flux' cannot be drawn"),
        ({"name": "base"}, "no subject may be named 'base'"),
        ({"method": "Full"}, "Full needs unet/config.json"),
    ],
)
def test_a_card_that_cannot_be_served_is_refused(
    copy_of_lora: Path, base: Path, places: Places, changes: dict[str, str], message: str
) -> None:
    write_card(copy_of_lora, base, **changes)
    write_manifest(copy_of_lora)
    with pytest.raises(LoadFault, match=message):
        fetch_artifact(SubjectSource(str(copy_of_lora)), places)


def test_a_listed_pickle_and_another_digest_are_refused(copy_of_lora: Path, lora: Made, places: Places) -> None:
    (copy_of_lora / "weights.ckpt").write_bytes(b"\x80\x04.")
    write_manifest(copy_of_lora)
    with pytest.raises(LoadFault, match="is a pickle"):
        fetch_artifact(SubjectSource(str(copy_of_lora)), places)
    with pytest.raises(LoadFault, match=r"the manifest is of sha256:.*, not of sha256:0"):
        fetch_artifact(SubjectSource(str(lora.folder), "sha256:" + "0" * 64), places)


def test_without_the_stores_keys_the_store_is_unavailable(places: Places) -> None:
    with pytest.raises(LoadFault, match="endpoint is missing") as fault:
        fetch_artifact(SubjectSource("s3://models/rusty"), places)
    assert fault.value.reason is Reason.STORE_UNAVAILABLE
