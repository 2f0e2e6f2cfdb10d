"""Resources made from a CRD's own schema: valid ones, and ones with a field that is not as it should be."""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from hypothesis import strategies as st

Path = tuple[str, ...]
ODD = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**40), 2**40), st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=12), st.just([]), st.just({}), st.just([{}]), st.just({"from": "the future"}),
)  # fmt: skip


def fields(schema: dict[str, Any], path: Path = ()) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Every field of an object's schema, by its path."""
    for name, inner in schema.get("properties", {}).items():
        yield (*path, name), inner
        yield from fields(inner, (*path, name))


def values(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values that the schema allows."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    match schema.get("type"):
        case "string":
            pattern = schema.get("pattern")
            text = st.from_regex(pattern, fullmatch=True) if pattern else st.text(max_size=30)
            low, high = schema.get("minLength", 0), schema.get("maxLength", 300)
            return text.filter(lambda t: low <= len(t) <= high)
        case "integer":
            return st.integers(schema.get("minimum", -(2**31)), schema.get("maximum", 2**31))
        case "number":
            low, high = schema.get("minimum", -1e9), schema.get("maximum", 1e9)
            return st.floats(low, high, exclude_min=bool(schema.get("exclusiveMinimum")), allow_nan=False)
        case "boolean":
            return st.booleans()
        case "array":
            most = min(schema.get("maxItems", 3), 3)
            return st.lists(values(schema["items"]), min_size=min(schema.get("minItems", 0), most), max_size=most)
    return _objects(schema)


def _objects(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    properties = schema.get("properties")
    if properties:
        required = set(schema.get("required", []))
        return st.fixed_dictionaries(
            {name: values(inner) for name, inner in properties.items() if name in required},
            optional={name: values(inner) for name, inner in properties.items() if name not in required},
        )
    inner = schema.get("additionalProperties")
    keys = st.from_regex(r"[a-z]{1,8}", fullmatch=True)
    return st.dictionaries(keys, values(inner) if isinstance(inner, dict) else st.text(max_size=8), max_size=2)


@st.composite
def changed(draw: st.DrawFn, body: dict[str, Any], schema: dict[str, Any]) -> tuple[dict[str, Any], list[Path]]:
    """`body` with one to three fields of its spec changed, added or taken away; and which."""
    found = deepcopy(body)
    known = list(fields(schema["properties"]["spec"], ("spec",)))
    paths = []
    for path, inner in draw(st.lists(st.sampled_from(known), min_size=1, max_size=3, unique_by=lambda f: f[0])):
        *way, last = path
        place: Any = found
        for key in way:
            place = place.setdefault(key, {}) if isinstance(place, dict) else None
            if not isinstance(place, dict):
                break
        if not isinstance(place, dict):
            continue
        if draw(st.integers(0, 9)) == 0:
            place.pop(last, None)
        else:
            place[last] = draw(st.one_of(values(inner), ODD))
        paths.append(path)
    return found, paths
