"""The API reference in Markdown, from the models."""

from collections.abc import Iterator
from typing import Any

from dreambooth_api import names
from dreambooth_api.exits import ExitCode
from dreambooth_api.job import DreamBoothJob
from dreambooth_api.model import PersonalizedModel
from dreambooth_api.pool import ServingPool
from dreambooth_api.reasons import Reason
from dreambooth_api.schema import structural_schema

_INTRO = f"""# API reference: `{names.API_VERSION}`

Generated from the models in `crds/dreambooth_api` by `python -m dreambooth_api.generate`; `kubectl explain dbj.spec`
shows the same. A field without a default and without *required* may be left out.
"""


def reference() -> str:
    """The whole page."""
    parts = [_INTRO]
    kinds = {names.JOB_KIND: DreamBoothJob, names.MODEL_KIND: PersonalizedModel, names.POOL_KIND: ServingPool}
    for kind, model in kinds.items():
        schema = structural_schema(model)
        parts.append(f"## {kind}\n\n{schema['description']}\n")
        parts.append("| field | type | default | meaning |\n|---|---|---|---|")
        parts.extend(_rows(schema, ""))
        parts.append("")
        rules = [f"- `{path}`: {message}" for path, message in _messages(schema, "")]
        parts.append("Rules over several fields:\n\n" + "\n".join(rules) + "\n")
    parts.append("## Reasons\n\n" + ", ".join(f"`{reason}`" for reason in Reason) + "\n")
    parts.append("## Exit codes of the trainer\n\n| code | name |\n|---|---|")
    parts.extend(f"| {code.value} | `{code.name}` |" for code in ExitCode)
    return "\n".join(parts) + "\n"


def _rows(schema: dict[str, Any], path: str) -> Iterator[str]:
    required = schema.get("required", [])
    for name, field in schema.get("properties", {}).items():
        where = f"{path}.{name}".lstrip(".")
        if "properties" not in field:
            default = "*required*" if name in required else _code(field.get("default"))
            yield f"| `{where}` | {_type(field)} | {default} | {field.get('description', '')} |"
        yield from _rows(field, where)
        if "properties" in field.get("items", {}):
            yield from _rows(field["items"], f"{where}[]")


def _type(field: dict[str, Any]) -> str:
    kind = field.get("type", "integer or string")
    if "enum" in field:
        return " ".join(f"`{value}`" for value in field["enum"])
    bounds = []
    if "minimum" in field:
        bounds.append(f"{'>' if field.get('exclusiveMinimum') else '≥'} {field['minimum']:g}")
    if "maximum" in field:
        bounds.append(f"{'<' if field.get('exclusiveMaximum') else '≤'} {field['maximum']:g}")
    return f"{kind} {', '.join(bounds)}".strip()


def _code(value: Any) -> str:
    return "" if value in (None, {}, []) else f"`{value}`"


def _messages(schema: dict[str, Any], path: str) -> Iterator[tuple[str, str]]:
    for rule in schema.get("x-kubernetes-validations", []):
        yield f"{path}{rule['fieldPath']}".lstrip("."), rule["message"]
    for name, field in schema.get("properties", {}).items():
        yield from _messages(field, f"{path}.{name}")
