"""pydantic models → CustomResourceDefinitions with structural schemas.

What a CRD needs and pydantic does not emit: references inlined, `anyOf: [X, null]` as X, numeric exclusive bounds as a
boolean beside the bound, no `additionalProperties: false`, and cross-field rules as CEL beside their fields. A model
states its rules in `__cel__`: tuples of (rule, message, field path).
"""

from typing import Any

from pydantic import BaseModel

from dreambooth_api import names
from dreambooth_api.job import DreamBoothJob
from dreambooth_api.model import PersonalizedModel
from dreambooth_api.pool import ServingPool

_DROPPED = ("title", "uniqueItems", "discriminator")


def structural_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The structural OpenAPI v3 schema of `model`, with its CEL rules."""
    raw = model.model_json_schema(by_alias=True)
    return _structural(raw, raw.get("$defs", {}), _rules(model))


def _rules(model: type[BaseModel], found: dict[str, list[dict]] | None = None) -> dict[str, list[dict]]:
    """CEL rules of `model` and of every model below it, by class name."""
    found = {} if found is None else found
    rules = getattr(model, "__cel__", ())
    found[model.__name__] = [{"rule": r, "message": m, "fieldPath": path} for r, m, path in rules]
    for field in model.model_fields.values():
        for inner in models_in(field.annotation):
            if inner.__name__ not in found:
                _rules(inner, found)
    return found


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """The models that a field's annotation names: `X`, `X | None` and `list[X]` have X."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for argument in getattr(annotation, "__args__", ()) for m in models_in(argument)]


def _structural(node: dict[str, Any], defs: dict[str, Any], rules: dict[str, list[dict]]) -> dict[str, Any]:
    """`node` without references and without what a structural schema must not have."""
    if "$ref" in node:
        target = defs[node["$ref"].rsplit("/", 1)[1]]
        node = {**target, **{k: v for k, v in node.items() if k != "$ref"}}
    if "anyOf" in node and not node.get("x-kubernetes-int-or-string"):
        (only,) = [branch for branch in node["anyOf"] if branch.get("type") != "null"]
        rest = {k: v for k, v in node.items() if k not in ("anyOf", "default")}
        return _structural({**only, **rest}, defs, rules)
    out = {k: v for k, v in node.items() if k not in _DROPPED and k != "$defs"}
    if "const" in out:
        out["enum"] = [out.pop("const")]
    for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if exclusive in out:
            out[bound], out[exclusive] = out[exclusive], True
    if "properties" in out:
        out["properties"] = {k: _structural(v, defs, rules) for k, v in out["properties"].items()}
        out.pop("additionalProperties", None)
        if "default" in out:
            # CEL rules are checked against the default as it is written, before the fields' own defaults fill it.
            out["default"] = {k: v["default"] for k, v in out["properties"].items() if "default" in v}
        if own := rules.get(node.get("title", "")):
            out["x-kubernetes-validations"] = own
    elif isinstance(out.get("additionalProperties"), dict):
        out["additionalProperties"] = _structural(out["additionalProperties"], defs, rules)
    if "items" in out:
        out["items"] = _structural(out["items"], defs, rules)
    return out


def _definition(model: type[BaseModel], kind: str, plural: str, short: str, version: dict[str, Any]) -> dict[str, Any]:
    singular = kind.lower()
    schema = structural_schema(model)
    conditions = schema["properties"]["status"]["properties"]["conditions"]
    conditions |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
    schema["properties"]["status"].pop("default", None)
    schema["properties"] = {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {
            "type": "object",
            "properties": {
                "name": {"type": "string", "maxLength": names.MAX_NAME_LENGTH, "pattern": names.NAME_PATTERN}
            },
        },
        **schema["properties"],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.{names.GROUP}",
            # Uninstalling the chart must not delete every job and model of the cluster with it.
            "annotations": {"helm.sh/resource-policy": "keep"},
            "labels": {"app.kubernetes.io/name": "dreambooth", "app.kubernetes.io/component": "crds"},
        },
        "spec": {
            "group": names.GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": singular,
                "shortNames": [short],
                "categories": ["dreambooth"],
            },
            "versions": [
                {"name": names.VERSION, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
                | version
            ],
        },
    }


def _column(name: str, kind: str, path: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": kind, "jsonPath": path, **more}


def job_definition() -> dict[str, Any]:
    """The CustomResourceDefinition of DreamBoothJob."""
    columns = [
        _column("Phase", "string", ".status.phase"),
        _column("Step", "integer", ".status.progress.step"),
        _column("Loss", "string", ".status.progress.loss"),
        _column("ETA", "integer", ".status.progress.etaSeconds", description="Seconds to the last step."),
        _column("Restarts", "integer", ".status.restarts"),
        _column("Reason", "string", ".status.conditions[?(@.type=='Failed')].reason", priority=1),
        _column("Age", "date", ".metadata.creationTimestamp"),
    ]
    version = {"subresources": {"status": {}}, "additionalPrinterColumns": columns}
    return _definition(DreamBoothJob, names.JOB_KIND, names.JOB_PLURAL, "dbj", version)


def model_definition() -> dict[str, Any]:
    """The CustomResourceDefinition of PersonalizedModel, with its scale subresource."""
    columns = [
        _column("Ready", "string", ".status.conditions[?(@.type=='Ready')].status"),
        _column("Replicas", "integer", ".status.replicas"),
        _column("URL", "string", ".status.url"),
        _column("Reason", "string", ".status.conditions[?(@.type=='Ready')].reason", priority=1),
        _column("Age", "date", ".metadata.creationTimestamp"),
    ]
    scale = {
        "specReplicasPath": ".spec.serving.minReplicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector",
    }
    version = {"subresources": {"status": {}, "scale": scale}, "additionalPrinterColumns": columns}
    return _definition(PersonalizedModel, names.MODEL_KIND, names.MODEL_PLURAL, "pm", version)


def pool_definition() -> dict[str, Any]:
    """The CustomResourceDefinition of ServingPool."""
    columns = [
        _column("Ready", "string", ".status.conditions[?(@.type=='Ready')].status"),
        _column("Replicas", "integer", ".status.replicas"),
        _column("Subjects", "integer", ".status.subjects"),
        _column("Base", "string", ".spec.baseModel.uri"),
        _column("Age", "date", ".metadata.creationTimestamp"),
    ]
    version = {"subresources": {"status": {}}, "additionalPrinterColumns": columns}
    return _definition(ServingPool, names.POOL_KIND, names.POOL_PLURAL, "spool", version)
