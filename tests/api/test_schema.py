"""The generated files are fresh, and their schemas are what an API server takes for structural."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from dreambooth_api import names
from dreambooth_api.generate import generated_files
from dreambooth_api.schema import job_definition, model_definition, pool_definition

ROOT = Path(__file__).parents[2]
DEFINITIONS = {"job": job_definition(), "model": model_definition(), "pool": pool_definition()}


def _schema(definition: dict[str, Any]) -> dict[str, Any]:
    (version,) = definition["spec"]["versions"]
    return version["schema"]["openAPIV3Schema"]


def _nodes(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from _nodes(inner, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from _nodes(schema[key], f"{path}[]")


@pytest.mark.parametrize("path", sorted(generated_files()))
def test_generated_files_are_fresh(path):
    assert (ROOT / path).read_text(encoding="utf-8") == generated_files()[path], "run python -m dreambooth_api.generate"


@pytest.mark.parametrize("definition", DEFINITIONS.values(), ids=DEFINITIONS)
def test_schemas_are_structural(definition):
    for path, node in _nodes(_schema(definition)):
        assert not {"$ref", "$defs", "allOf", "oneOf", "not", "const", "title", "uniqueItems"} & set(node), path
        if node.get("x-kubernetes-int-or-string"):
            continue
        assert "anyOf" not in node, path
        assert isinstance(node["type"], str), path
        assert not ("properties" in node and "additionalProperties" in node), path
        for bound in ("exclusiveMinimum", "exclusiveMaximum"):
            assert node.get(bound, True) is True, path


@pytest.mark.parametrize("definition", DEFINITIONS.values(), ids=DEFINITIONS)
def test_every_field_is_explained(definition):
    for path, node in _nodes(_schema(definition)):
        if path and not path.startswith((".apiVersion", ".kind", ".metadata")) and not path.endswith("[]"):
            assert node.get("description", "").endswith((".", ").")), f"{path}: no sentence explains it"


@pytest.mark.parametrize("definition", DEFINITIONS.values(), ids=DEFINITIONS)
def test_defaults_satisfy_their_own_schema_in_full(definition):
    """An object's default holds its fields' defaults: the API server checks CEL rules against it as it stands."""
    for path, node in _nodes(_schema(definition)):
        for name, inner in node.get("properties", {}).items():
            if "default" in node and "default" in inner:
                assert node["default"][name] == inner["default"], f"{path}.{name}"
        if "enum" in node and "default" in node:
            assert node["default"] in node["enum"], path
        if "minimum" in node and "default" in node:
            assert node["default"] >= node["minimum"], path


@pytest.mark.parametrize("definition", DEFINITIONS.values(), ids=DEFINITIONS)
def test_only_what_design_requires_is_required(definition):
    spec = _schema(definition)["properties"]["spec"]
    required = {names.JOB_KIND: ["baseModel", "subject", "publish"], names.POOL_KIND: ["baseModel"]}
    assert spec.get("required", []) == required.get(definition["spec"]["names"]["kind"], [])


def test_names_columns_and_subresources_are_design_s():
    job, model = DEFINITIONS["job"]["spec"], DEFINITIONS["model"]["spec"]
    assert (job["names"]["shortNames"], model["names"]["shortNames"]) == (["dbj"], ["pm"])
    shown = [c["name"].upper() for c in job["versions"][0]["additionalPrinterColumns"] if not c.get("priority")]
    assert shown == ["PHASE", "STEP", "LOSS", "ETA", "RESTARTS", "AGE"]
    shown = [c["name"].upper() for c in model["versions"][0]["additionalPrinterColumns"] if not c.get("priority")]
    assert shown == ["READY", "REPLICAS", "URL", "AGE"]
    assert "status" in job["versions"][0]["subresources"]
    assert set(model["versions"][0]["subresources"]) == {"status", "scale"}


@pytest.mark.parametrize("definition", DEFINITIONS.values(), ids=DEFINITIONS)
def test_definitions_outlive_the_chart(definition):
    assert definition["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


@pytest.mark.parametrize("definition", DEFINITIONS.values(), ids=DEFINITIONS)
def test_conditions_are_a_map_by_type(definition):
    conditions = _schema(definition)["properties"]["status"]["properties"]["conditions"]
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]
    assert {"type", "status", "lastTransitionTime", "reason"} <= set(conditions["items"]["required"])


def test_the_reference_names_every_field_of_both_kinds():
    text = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    for definition in DEFINITIONS.values():
        for path, node in _nodes(_schema(definition)["properties"]["spec"]):
            if path and "properties" not in node and not path.endswith("[]"):
                assert f"`spec{path}`" in text, path


def test_generated_yaml_has_no_anchors_and_one_document_a_file():
    for path, text in generated_files().items():
        if path.endswith(".yaml"):
            assert "&id" not in text
            assert yaml.safe_load(text)["spec"]["group"] == names.GROUP
