"""What is served, for people and programs: the models' entries, and how a request becomes drawings."""

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from dreambooth_server.artifacts import Artifact
from dreambooth_server.drawing import Drawing, Sampler
from dreambooth_server.engine import Engine
from dreambooth_server.errors import ApiError
from dreambooth_server.prompts import Naming, for_base, for_subject
from dreambooth_server.protocol import ImageRequest, ModelEntry, SubjectCard, parse_size
from dreambooth_server.settings import BASE_MODEL

_SCENES = ("in the snow", "on the beach", "at night", "on grass", "on a red background")
_SHOWN = 20


@dataclass(frozen=True)
class Wanted:
    """Which model a request is for."""

    model: str
    """The engine's name of it."""
    artifact: Artifact
    """Whose names and defaults hold: the subject's; for the base, that of a subject that completes it."""


@dataclass(frozen=True)
class Plan:
    """An understood request."""

    drawings: list[Drawing]
    warnings: list[str]


def naming(artifact: Artifact) -> Naming:
    """What the subject of `artifact` is called."""
    return Naming(artifact.name, artifact.card.identifier, artifact.card.class_name)


def find_model(artifacts: Mapping[str, Artifact], model: str | None) -> str:
    """The name of the asked-for model. Raises ApiError 404."""
    if model is None:
        return next(iter(artifacts))
    if model == BASE_MODEL or model in artifacts:
        return model
    raise unknown_model([*artifacts, BASE_MODEL])


def unknown_model(known: Iterable[str]) -> ApiError:
    """Nothing of the name is here."""
    names = list(known)
    shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
    return ApiError(404, f"The model does not exist here; there are: {shown}.", "model_not_found", "model")


def plan(request: ImageRequest, wanted: Wanted, engine: Engine) -> Plan:
    """The drawings that `request` means, and what of it is not done to the letter. Raises ApiError 400."""
    artifact, model = wanted.artifact, wanted.model
    fill = for_base if model == BASE_MODEL else for_subject
    prompt = fill(request.prompt, naming(artifact))
    negative = fill(request.negative_prompt or "", naming(artifact))
    width, height = parse_size(request.size, engine.abilities.resolution)
    _check_size(width, height, engine)
    card = artifact.card
    seed = secrets.randbelow(2**32) if request.seed is None else request.seed
    drawings = [
        Drawing(
            model=model,
            prompt=prompt,
            negative_prompt=negative,
            seed=seed + index,
            width=width,
            height=height,
            steps=request.steps or card.steps,
            guidance_scale=card.guidance_scale if request.guidance_scale is None else request.guidance_scale,
            sampler=Sampler(request.scheduler or Sampler.DPM),
        )
        for index in range(request.n or 1)
    ]
    return Plan(drawings, _warnings(prompt, negative, wanted, engine))


def entries(engine: Engine, base_digest: str) -> list[ModelEntry]:
    """What `GET /v1/models` lists: the subjects, the default one first, then the base."""
    # A copy: a pool's grow while they are listed.
    artifacts = list(engine.artifacts.values())
    subjects = [_entry(engine, artifact, artifact.name, artifact.digest) for artifact in artifacts]
    # What is said of the base is the first subject's word for it.
    return [*subjects, *(_entry(engine, artifact, BASE_MODEL, base_digest) for artifact in artifacts[:1])]


def _check_size(width: int, height: int, engine: Engine) -> None:
    side, multiple = engine.abilities.resolution, engine.abilities.multiple
    low, high = max(multiple, side // 2), side * 2
    if not (low <= width <= high and low <= height <= high) or width % multiple or height % multiple:
        message = f"size: each side must be a multiple of {multiple} from {low} to {high}, or 'auto' ({side}x{side})."
        raise ApiError(400, message, "invalid_value", "size")


def _warnings(prompt: str, negative: str, wanted: Wanted, engine: Engine) -> list[str]:
    limit = engine.abilities.prompt_tokens
    found = [
        f"The {what} has {count} tokens; the model reads the first {limit}."
        for what, text in (("prompt", prompt), ("negative prompt", negative))
        if (count := engine.count_tokens(text)) > limit
    ]
    artifact = wanted.artifact
    if wanted.model != BASE_MODEL and artifact.card.identifier.lower() not in prompt.lower():
        found.append(f"The prompt does not name the subject: write {artifact.name} where it belongs.")
    return found


def _entry(engine: Engine, artifact: Artifact, model: str, digest: str) -> ModelEntry:
    card, is_base = artifact.card, model == BASE_MODEL
    called = card.class_name if is_base else model
    return ModelEntry(
        id=model,
        created=_seconds(card.created),
        owned_by=card.namespace,
        dreambooth=SubjectCard(
            identifier=None if is_base else card.identifier,
            class_name=None if is_base else card.class_name,
            digest=digest,
            base=card.base.uri,
            method=None if is_base else card.method.value,
            resolution=engine.abilities.resolution,
            size_multiple=engine.abilities.multiple,
            steps=card.steps,
            guidance_scale=card.guidance_scale,
            prompt_tokens=engine.abilities.prompt_tokens,
            scores={} if is_base else card.scores,
            examples=[f"a photo of {called} {scene}" for scene in _SCENES],
        ),
    )


def _seconds(created: str) -> int:
    """Seconds since 1970 of an RFC 3339 time; 0 for anything else: no reason to serve nothing."""
    try:
        return int(datetime.fromisoformat(created).timestamp())
    except ValueError:
        return 0
