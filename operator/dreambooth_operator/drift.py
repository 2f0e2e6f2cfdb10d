"""Whether a live object still is what its manifest says. Pure."""

import hashlib
import json
from decimal import Decimal, InvalidOperation
from typing import Any

from dreambooth_api import names
from dreambooth_operator.views import Body, ChildRef, View

_SUFFIXES = {
    "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "k": Decimal(10**3), "M": Decimal(10**6),
    "G": Decimal(10**9), "T": Decimal(10**12), "P": Decimal(10**15), "E": Decimal(10**18),
    "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30), "Ti": Decimal(2**40), "Pi": Decimal(2**50),
    "Ei": Decimal(2**60),
}  # fmt: skip


def quantity(value: Any) -> Decimal | None:
    """A Kubernetes quantity ("500m", "2Gi", 1) as a number; None when it is none."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    text = str(value)
    for length in (2, 1, 0):
        suffix = text[len(text) - length :] if length else ""
        if suffix and suffix not in _SUFFIXES:
            continue
        try:
            return Decimal(text[: len(text) - length]) * (_SUFFIXES[suffix] if suffix else 1)
        except InvalidOperation:
            continue
    return None


def digest(manifest: Body) -> str:
    """A short hash of a manifest, for the annotation that says what a child was made from."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()[:16]


def stamped(manifest: Body) -> Body:
    """`manifest` with its digest as an annotation."""
    metadata = manifest["metadata"]
    annotations = {**metadata.get("annotations", {}), names.ANNOTATION_SPEC_DIGEST: digest(manifest)}
    return {**manifest, "metadata": {**metadata, "annotations": annotations}}


def stamp_of(body: Body) -> str | None:
    """The digest that a manifest or a live object carries."""
    return body["metadata"].get("annotations", {}).get(names.ANNOTATION_SPEC_DIGEST)


def needs_apply(view: View, manifest: Body) -> bool:
    """Whether a child is to be applied: it is absent, or not as it should be and was not left so by the last apply.

    A Job is applied once: its pods' template cannot change.
    """
    ref = ChildRef(manifest["kind"], manifest["metadata"]["name"])
    live = view.children.get(ref)
    if live is None:
        return ref not in view.leaving
    if ref.kind == "Job" or covers(live, manifest):
        return False
    return (ref, digest(manifest), version(live)) not in view.settled


def version(live: Body) -> object:
    """What changes when somebody changes what an object should be."""
    return live["metadata"].get("generation", live["metadata"].get("resourceVersion"))


def covers(live: Any, wanted: Any) -> bool:
    """Whether `live` has all that `wanted` says; what it has beyond that are defaults and others' fields."""
    if isinstance(wanted, dict):
        return all(covers((live if isinstance(live, dict) else {}).get(key), value) for key, value in wanted.items())
    if isinstance(wanted, list):
        if not wanted:
            return not live
        return isinstance(live, list) and len(live) == len(wanted) and all(map(covers, live, wanted))
    if live is None:
        # Empty values are not serialised.
        return wanted in (None, "", 0, False)
    if live == wanted:
        return True
    left, right = quantity(live), quantity(wanted)
    return left is not None and left == right
