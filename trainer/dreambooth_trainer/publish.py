"""The artifact: what was trained, as diffusers loads it, with its card, under the hash of its content."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from dreambooth_api import layout
from dreambooth_api.artifact import BaseReference, Manifest, ModelCard
from dreambooth_api.conditions import now
from dreambooth_api.job import ArtifactStatus, Scores
from dreambooth_api.names import MANIFEST, MODEL_CARD
from dreambooth_trainer.config import Plan
from dreambooth_trainer.context import Context
from dreambooth_trainer.family import Family
from dreambooth_trainer.lora import save_adapters
from dreambooth_trainer.manifests import CorruptFolder, describe, get_folder, put_folder
from dreambooth_trainer.store import Store
from dreambooth_trainer.token import ROW, save_token
from dreambooth_trainer.trainee import Trainee


@dataclass(frozen=True)
class Made:
    """What the card states beside the plan."""

    base_digest: str
    scores: Scores
    run_id: str | None
    # The step of the checkpoint that is published.
    step: int


def publish(ctx: Context, plan: Plan, family: Family, trainee: Trainee, made: Made) -> ArtifactStatus:
    """Write the artifact below models/<namespace>/<name>/<digest>/, its manifest last.

    One that is there and whole stays as it is, card and all, since servers may be reading it. One with another card has
    no manifest while it is written.
    """
    folder = ctx.work / "artifact"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        write_weights(folder, plan, family, trainee)
        digest = describe(folder).digest
        card = card_of(ctx, plan, family, made)
        (folder / MODEL_CARD).write_text(json.dumps(card.to_dict(), indent=1) + "\n", encoding="utf-8")
        store = ctx.store.at(layout.artifact_prefix(ctx.namespace, plan.spec.publish.name, digest))
        manifest = _published(store, ctx.work / "published", digest, card)
        if manifest is None:
            store.delete([MANIFEST])
            manifest = put_folder(store, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return ArtifactStatus(uri=store.uri, digest=digest, bytes=manifest.total_bytes)


def _published(store: Store, folder: Path, digest: str, card: ModelCard) -> Manifest | None:
    """The manifest of what is in `store`, if it has that digest, is whole, and its card differs by the date at most."""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        manifest = get_folder(store, folder)
        there = ModelCard.model_validate_json((folder / MODEL_CARD).read_text(encoding="utf-8"))
    except (CorruptFolder, ValueError, OSError):
        return None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    same = manifest.digest == digest and there.model_copy(update={"created": card.created}) == card
    return manifest if same else None


def write_weights(folder: Path, plan: Plan, family: Family, trainee: Trainee) -> None:
    """Adapters as one file, or whole parts as folders, and a learned token; safetensors only."""
    method = plan.spec.method
    if method.learn_token:
        save_token(folder, plan.spec.subject.identifier, trainee.encoders)
    trained = trainee.encoders if method.train_text_encoder else {}
    if not plan.full:
        save_adapters(folder, family.pipeline, trainee.unet, trained)
        return
    for name, module in {"unet": trainee.unet, **trained}.items():
        dtype = stored_dtype(family.folder / name)
        weights = {key: value.to(dtype) for key, value in module.state_dict().items() if not key.endswith(f".{ROW}")}
        module.save_pretrained(folder / name, state_dict=weights, safe_serialization=True)  # type: ignore[operator]


def stored_dtype(folder: Path) -> torch.dtype:
    """The number format in which the base keeps a part."""
    from safetensors import safe_open

    with safe_open(sorted(folder.glob("*.safetensors"))[0], framework="pt") as file:
        return file.get_tensor(next(iter(file.keys()))).dtype


def card_of(ctx: Context, plan: Plan, family: Family, made: Made) -> ModelCard:
    """All that a server must know."""
    spec = plan.spec
    return ModelCard(
        name=spec.publish.name,
        namespace=ctx.namespace,
        job=ctx.name,
        family=family.name,
        base=BaseReference(
            uri=ctx.read_from(spec.base_model.uri), revision=spec.base_model.revision, digest=made.base_digest
        ),
        method=spec.method.type,
        lora=None if plan.full else spec.method.lora,
        train_text_encoder=spec.method.train_text_encoder,
        learned_token=spec.method.learn_token,
        identifier=spec.subject.identifier,
        class_name=spec.subject.class_name,
        prompt=plan.instance_prompt,
        resolution=plan.resolution,
        steps=spec.validation.steps,
        guidance_scale=spec.validation.guidance_scale,
        trained_steps=made.step,
        scores={name: float(value) for name, value in made.scores.to_dict().items()},
        run_id=made.run_id,
        created=now(),
    )
