"""What is read is what was written."""

from pathlib import Path

import pytest

from dreambooth_api.artifact import Manifest, ManifestEntry
from dreambooth_server.verify import Unverified, base_files, check_files, check_no_pickles, sha256


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "weights.safetensors").write_bytes(b"weights")
    return tmp_path


def manifest_of(folder: Path) -> Manifest:
    name = "unet/weights.safetensors"
    return Manifest(files={name: ManifestEntry(bytes=7, sha256=sha256(folder / name))})


def test_what_was_not_touched_passes(folder: Path) -> None:
    check_files(folder, manifest_of(folder))


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"weighty", "differs from its SHA-256"), (b"weight", "has 6 bytes instead of 7"), (None, "is missing")],
)
def test_what_changed_is_named(folder: Path, content: bytes | None, message: str) -> None:
    manifest, path = manifest_of(folder), folder / "unet" / "weights.safetensors"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(Unverified, match=f"unet/weights.safetensors {message}"):
        check_files(folder, manifest)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "unet/a.pt", "MODEL.CKPT", "x/y.pkl"])
def test_pickles_are_refused(name: str) -> None:
    with pytest.raises(Unverified, match="is a pickle"):
        check_no_pickles([name])


def test_a_bases_files_are_configs_vocabularies_and_safetensors() -> None:
    names = ["model_index.json", "unet/a.safetensors", "unet/a.bin", "tokenizer/merges.txt", ".git/x.json", "README.md"]
    assert base_files(names) == ["model_index.json", "unet/a.safetensors", "tokenizer/merges.txt"]
