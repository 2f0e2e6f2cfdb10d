"""The door: a resource as a dict, or a file of a person, to a model, with errors that name the field."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError, to_json

from dreambooth_api import names
from dreambooth_api.job import DreamBoothJob, DreamBoothJobSpec
from dreambooth_api.model import PersonalizedModel, PersonalizedModelSpec
from dreambooth_api.pool import ServingPool
from dreambooth_api.schema import models_in
from dreambooth_api.serving import Scaling
from dreambooth_api.uris import CLIMBING

M = TypeVar("M", bound=BaseModel)


class InvalidResource(ValueError):
    """A resource that cannot be understood; the text has one line a fault, each with its field."""


def _validate(model: type[M], body: dict[str, Any]) -> M:
    # Strictly, as the API server does: "600" is no integer. By way of JSON: the strict mode of Python takes no enum by
    # its value. Without the status: what another release wrote there must not hide the spec.
    wanted = {key: value for key, value in body.items() if key != "status"}
    try:
        return model.model_validate_json(to_json(wanted, fallback=str), strict=True)
    except PydanticSerializationError as e:
        raise InvalidResource(f"there is something in it that JSON cannot hold: {e}") from e
    except ValidationError as e:
        faults = (f"{'.'.join(str(p) for p in fault['loc'])}: {fault['msg']}" for fault in e.errors())
        raise InvalidResource("\n".join(faults)) from e


def parse_job(body: dict[str, Any]) -> DreamBoothJob:
    """A DreamBoothJob from the API server. Raises InvalidResource."""
    job = _validate(DreamBoothJob, body)
    if faults := [*_name_faults(body), *job_faults(job.spec)]:
        raise InvalidResource("\n".join(faults))
    return job


def parse_model(body: dict[str, Any]) -> PersonalizedModel:
    """A PersonalizedModel from the API server. Raises InvalidResource."""
    model = _validate(PersonalizedModel, body)
    if faults := [*_name_faults(body), *model_faults(model.spec)]:
        raise InvalidResource("\n".join(faults))
    return model


def parse_pool(body: dict[str, Any]) -> ServingPool:
    """A ServingPool from the API server. Raises InvalidResource."""
    pool = _validate(ServingPool, body)
    spec = pool.spec
    faults = [*_name_faults(body), *_serving_faults(spec, "spec")]
    if faults := [*faults, *_climbing("spec.baseModel.uri", spec.base_model.uri)]:
        raise InvalidResource("\n".join(faults))
    return pool


def parse_job_file(body: dict[str, Any]) -> DreamBoothJob:
    """A DreamBoothJob from a person's file: kind and unknown fields are checked too. Raises InvalidResource."""
    kind = (body.get("apiVersion"), body.get("kind")) if isinstance(body, dict) else None
    if kind != (names.API_VERSION, names.JOB_KIND):
        raise InvalidResource(f"kind: expected {names.API_VERSION} {names.JOB_KIND}")
    if unknown := list(_unknown(DreamBoothJob, {"spec": body.get("spec")}, "")):
        raise InvalidResource("\n".join(f"{path}: unknown field" for path in unknown))
    return parse_job(body)


def _unknown(model: type[BaseModel], value: dict[str, Any], path: str) -> Iterator[str]:
    known = {field.alias or name: field.annotation for name, field in model.model_fields.items()}
    for key, inner in value.items():
        where = f"{path}.{key}".lstrip(".")
        if key not in known:
            yield where
            continue
        items = [(where, inner)] if not isinstance(inner, list) else [(f"{where}.{i}", x) for i, x in enumerate(inner)]
        for candidate in models_in(known[key]):
            for place, item in items:
                if isinstance(item, dict):
                    yield from _unknown(candidate, item, place)


def _name_faults(body: dict[str, Any]) -> list[str]:
    """What the CRD says about `metadata.name`, which no model holds; a body without a name has no such fault."""
    metadata = body.get("metadata")
    name = metadata.get("name") if isinstance(metadata, Mapping) else None
    if name is None:
        return []
    if isinstance(name, str) and re.fullmatch(names.NAME_PATTERN, name) and len(name) <= names.MAX_NAME_LENGTH:
        return []
    rule = f"at most {names.MAX_NAME_LENGTH} lower-case letters, digits and '-', beginning with a letter"
    return [f"metadata.name: {name!r} must be {rule}"]


def job_faults(spec: DreamBoothJobSpec) -> list[str]:
    """Cross-field faults, one line each: the CRD's CEL rules again, for jobs that no API server has seen."""
    faults = [*_uri_faults(spec), *_serving_faults(spec.publish.serving, "spec.publish.serving")]
    subject, training = spec.subject, spec.training
    if "{identifier}" not in subject.prompt and subject.identifier not in subject.prompt:
        faults.append("spec.subject.prompt: prompt must contain the identifier: write {identifier} where it belongs")
    if training.steps is not None and training.warmup_steps >= training.steps:
        faults.append("spec.training.warmupSteps: warmupSteps must be below steps")
    if spec.topology.gpus_per_node == 0 and training.precision == "fp16":
        faults.append("spec.training.precision: fp16 needs a GPU: set topology.gpusPerNode or another precision")
    shardable = training.optimizer == "AdamW" and training.precision != "fp16" and not training.compile
    if spec.topology.sharding == "FullySharded" and not shardable:
        faults.append(
            "spec.topology.sharding: FullySharded is for AdamW in bf16, fp32 or auto, without compile: change these or "
            "use Replicated"
        )
    every = spec.validation.every_steps
    if every is not None and training.steps is not None and every > training.steps:
        faults.append("spec.validation.everySteps: validation.everySteps must not exceed training.steps")
    return faults


def model_faults(spec: PersonalizedModelSpec) -> list[str]:
    """Cross-field faults of a model, one line each: the CRD's CEL rules again."""
    faults = _serving_faults(spec.serving, "spec.serving")
    faults += _climbing("spec.artifact.uri", spec.artifact.uri if spec.artifact else None)
    if (spec.artifact is None) == (spec.job_ref is None):
        faults.append("spec.artifact: exactly one of artifact and jobRef must be given")
    return faults


def _serving_faults(serving: Scaling, path: str) -> list[str]:
    if serving.min_replicas <= serving.max_replicas:
        return []
    return [f"{path}.minReplicas: minReplicas must not exceed maxReplicas"]


def _uri_faults(spec: DreamBoothJobSpec) -> list[str]:
    uris = {
        "spec.baseModel.uri": spec.base_model.uri,
        "spec.subject.images.uri": spec.subject.images.uri,
        "spec.scoring.clip": spec.scoring.clip,
        "spec.scoring.dino": spec.scoring.dino,
    }
    return [fault for path, uri in uris.items() for fault in _climbing(path, uri)]


def _climbing(path: str, uri: str | None) -> list[str]:
    return [f"{path}: {path.rsplit('.', 1)[1]} {CLIMBING}"] if "/../" in f"{uri}/" else []


def fill_prompt(template: str, identifier: str, class_name: str) -> str:
    """`template` with `{identifier}` and `{className}` filled in; other braces stay."""
    return template.replace("{identifier}", identifier).replace("{className}", class_name)
