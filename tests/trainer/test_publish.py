import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from dreambooth_api.artifact import Manifest, ModelCard
from dreambooth_trainer import loop, publish
from dreambooth_trainer.run import copy_artifact

SCORING = {"clip": "s3://dreambooth/examples/encoder", "dino": "s3://dreambooth/examples/encoder-dino"}


def published(ctx, desk, tmp_path: Path) -> tuple[Path, Manifest, ModelCard]:
    result = loop.train(ctx, desk(ctx))
    assert result is not None
    assert result.artifact is not None
    copy_artifact(result.artifact, tmp_path / "artifact")
    folder = tmp_path / "artifact"
    manifest = Manifest.model_validate_json((folder / "MANIFEST.json").read_text())
    card = ModelCard.model_validate_json((folder / "model.json").read_text())
    assert manifest.digest == result.artifact.digest
    assert result.artifact.uri.endswith(f"models/tests/small/{manifest.digest[7:23]}")
    assert set(manifest.files) == {
        p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and p.name != "MANIFEST.json"
    }
    return folder, manifest, card


def test_lora(ready, desk, tmp_path: Path, examples: Path) -> None:
    from diffusers import StableDiffusionPipeline

    ctx = ready(scoring=SCORING, publish={"gate": {"clipI": -1, "div": 0}, "checkpoint": "Last"})
    folder, manifest, card = published(ctx, desk, tmp_path)
    assert set(manifest.files) == {"pytorch_lora_weights.safetensors", "model.json"}
    assert card.lora is not None
    assert card.lora.rank == 16
    assert (card.family, card.identifier, card.class_name, card.trained_steps) == ("sd", "sks", "robot", 4)
    # As it was read, so that `dreambooth serve` finds it again on this machine.
    assert card.base.uri == f"file://{examples / 'base'}"
    assert {"clipI", "clipT", "dino", "pres", "div", "baseClipI"} <= set(card.scores)
    pipeline = StableDiffusionPipeline.from_pretrained(ctx.mirror.folder / "base")
    pipeline.load_lora_weights(folder)
    assert pipeline.get_active_adapters()


def test_full(ready, desk, tmp_path: Path, examples: Path) -> None:
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextModel

    ctx = ready(method={"type": "Full"})
    folder, manifest, card = published(ctx, desk, tmp_path)
    assert {name.split("/")[0] for name in manifest.files} == {"unet", "text_encoder", "model.json"}
    assert not [name for name in manifest.files if not name.endswith((".json", ".safetensors"))]
    assert card.lora is None
    for kind, part in ((UNet2DConditionModel, "unet"), (CLIPTextModel, "text_encoder")):
        trained, base = kind.from_pretrained(folder / part), kind.from_pretrained(examples / "base" / part)
        pairs = list(zip(trained.parameters(), base.parameters(), strict=True))
        assert any(not torch.equal(a, b) for a, b in pairs)
        assert all(torch.allclose(a.float(), b.float(), atol=0.05) for a, b in pairs)


def test_below_the_gate_nothing_is_published(ready, desk) -> None:
    ctx = ready(scoring=SCORING, publish={"gate": {"clipI": 0.999}})
    result = loop.train(ctx, desk(ctx))
    assert result is not None
    assert result.artifact is None
    assert result.below_gate is not None
    assert result.below_gate.startswith("clipI ")
    assert result.scores.clip_i is not None
    assert result.scores.base_clip_i is not None
    assert not (ctx.store.root / "models").exists()


def test_the_same_training_has_the_same_digest(ready, desk, tmp_path: Path) -> None:
    first = loop.train(a := ready("a"), desk(a))
    second = loop.train(b := ready("b"), desk(b))
    other = loop.train(c := ready("c", training={"seed": 5}), desk(c))
    assert first.artifact.digest == second.artifact.digest != other.artifact.digest


def test_published_again(ready, desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers may be reading it: what is there stays; what is spoilt, or has another card, is never half of each."""
    ctx = ready()
    artifact = loop.train(ctx, desk(ctx)).artifact
    folder = Path(artifact.uri.removeprefix("file://"))
    written, put = [], publish.put_folder
    real = lambda store, source: (written.append((folder / "MANIFEST.json").exists()), put(store, source))[1]  # noqa: E731
    monkeypatch.setattr(publish, "put_folder", real)
    card, weights = folder / "model.json", folder / "pytorch_lora_weights.safetensors"
    first, good = card.read_bytes(), weights.read_bytes()
    assert loop.train(ctx, desk(ctx)).artifact == artifact
    assert (written, card.read_bytes()) == ([], first)
    weights.write_bytes(good[:-1])
    assert loop.train(ctx, desk(ctx)).artifact.digest == artifact.digest
    assert (written, weights.read_bytes()) == ([False], good)
    with_run = desk(ctx)
    with_run.tracker.run_id = lambda wait: "another"
    assert loop.train(ctx, with_run).artifact.digest == artifact.digest
    assert (written, json.loads(card.read_bytes())["runId"]) == ([False, False], "another")


@pytest.mark.parametrize("spec", [{"prior": {"weight": 0}}, {"method": {"trainTextEncoder": False}}])
def test_variants_train_and_publish(ready, desk, tmp_path: Path, spec: dict) -> None:
    _, manifest, card = published(ready(**spec), desk, tmp_path)
    assert card.train_text_encoder == spec.get("method", {}).get("trainTextEncoder", True)
    assert manifest.total_bytes > 1000


def test_validation_pictures_while_training(ready, desk) -> None:
    ctx = ready(validation={"everySteps": 2, "images": 2})
    kept: dict[str, Image.Image] = {}
    place = desk(ctx)
    place.tracker.image = lambda image, path: kept.update({path: image})
    loop.train(ctx, place)
    assert sorted(kept) == ["validation/step-000002.png", "validation/step-000004.png"]
    assert kept["validation/step-000004.png"].size == (64, 32)
    assert json.loads(ctx.job_store.read("prepared.json"))["prior_key"].startswith("sha256:")
