"""The door: a resource as a dict, or a file of a person, to a model, with errors that name the field."""

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from dreambooth_api import names
from dreambooth_api.job import DreamBoothJob, DreamBoothJobSpec
from dreambooth_api.model import PersonalizedModel

M = TypeVar("M", bound=BaseModel)


class InvalidResource(ValueError):
    """A resource that cannot be understood; the text has one line a fault, each with its field."""


def _validate(model: type[M], body: dict[str, Any]) -> M:
    try:
        return model.model_validate(body)
    except ValidationError as e:
        faults = (f"{'.'.join(str(p) for p in fault['loc'])}: {fault['msg']}" for fault in e.errors())
        raise InvalidResource("\n".join(faults)) from e


def parse_job(body: dict[str, Any]) -> DreamBoothJob:
    """A DreamBoothJob from the API server. Raises InvalidResource."""
    job = _validate(DreamBoothJob, body)
    if faults := job_faults(job.spec):
        raise InvalidResource("\n".join(faults))
    return job


def parse_model(body: dict[str, Any]) -> PersonalizedModel:
    """A PersonalizedModel from the API server. Raises InvalidResource."""
    return _validate(PersonalizedModel, body)


def parse_job_file(body: dict[str, Any]) -> DreamBoothJob:
    """A DreamBoothJob from a person's file: kind and unknown fields are checked too. Raises InvalidResource."""
    if body.get("apiVersion") != names.API_VERSION or body.get("kind") != names.JOB_KIND:
        raise InvalidResource(f"kind: expected {names.API_VERSION} {names.JOB_KIND}")
    if unknown := list(_unknown(DreamBoothJob, {"spec": body.get("spec", {})}, "")):
        raise InvalidResource("\n".join(f"{path}: unknown field" for path in unknown))
    return parse_job(body)


def _unknown(model: type[BaseModel], value: dict[str, Any], path: str):
    known = {field.alias or name: field.annotation for name, field in model.model_fields.items()}
    for key, inner in value.items():
        where = f"{path}.{key}".lstrip(".")
        if key not in known:
            yield where
        elif isinstance(inner, dict):
            for candidate in (known[key], *getattr(known[key], "__args__", ())):
                if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                    yield from _unknown(candidate, inner, where)


def job_faults(spec: DreamBoothJobSpec) -> list[str]:
    """Cross-field faults, one line each: the CRD's CEL rules again, for jobs that no API server has seen."""
    faults = []
    subject, training = spec.subject, spec.training
    if "{identifier}" not in subject.prompt and subject.identifier not in subject.prompt:
        faults.append("spec.subject.prompt: prompt must contain the identifier: write {identifier} where it belongs")
    if training.steps is not None and training.warmup_steps >= training.steps:
        faults.append("spec.training.warmupSteps: warmupSteps must be below steps")
    if spec.topology.gpus_per_node == 0 and training.optimizer == "AdamW8bit":
        faults.append("spec.training.optimizer: AdamW8bit needs a GPU: set topology.gpusPerNode or another optimizer")
    every = spec.validation.every_steps
    if every is not None and training.steps is not None and every > training.steps:
        faults.append("spec.validation.everySteps: validation.everySteps must not exceed training.steps")
    return faults


def fill_prompt(template: str, identifier: str, class_name: str) -> str:
    """`template` with `{identifier}` and `{className}` filled in; other braces stay."""
    return template.replace("{identifier}", identifier).replace("{className}", class_name)
