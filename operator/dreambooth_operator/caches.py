"""The informers' caches: objects by name, pods by owner, and who refers to whom. No I/O.

An object is kept as JSON: Python's own dictionaries take many times the memory. Whoever asks gets a fresh copy.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from pydantic_core import from_json, to_json

from dreambooth_api import names
from dreambooth_api.serving import Serving, ServingMode
from dreambooth_operator.views import Body

# Kinds of children, and the label that selects them at the API server: only what is ours is cached.
CHILD_KINDS = ("Job", "Deployment", "HorizontalPodAutoscaler", "PodDisruptionBudget", "Service")
OWN_KINDS = (names.JOB_KIND, names.MODEL_KIND, names.POOL_KIND)
POD = "Pod"
SELECTOR = f"{names.LABEL_MANAGED_BY}={names.MANAGER}"

# What is read of any object's metadata; not `managedFields`, which can be half of the object.
METADATA = ("name", "namespace", "uid", "resourceVersion", "generation", "labels", "annotations", "ownerReferences",
            "creationTimestamp", "deletionTimestamp")  # fmt: skip
# Annotations that nobody reads here, and that are as long as the rest together.
_UNREAD = ("kubectl.kubernetes.io/last-applied-configuration", names.ANNOTATION_JOB)
_POD_STATUS = ("phase", "reason", "message", "podIP", "conditions", "containerStatuses", "startTime")

Name = tuple[str, str]


def slim(body: Mapping[str, Any]) -> Body:
    """An object without what nobody reads and costs the most memory."""
    metadata = {key: body["metadata"][key] for key in METADATA if key in body["metadata"]}
    if annotations := metadata.get("annotations"):
        metadata["annotations"] = {key: value for key, value in annotations.items() if key not in _UNREAD}
    return {**body, "metadata": metadata}


def slim_pod(body: Mapping[str, Any]) -> Body:
    """A pod as far as causes and progress need it."""
    status, node = body.get("status") or {}, (body.get("spec") or {}).get("nodeName")
    return {
        "metadata": slim(body)["metadata"],
        "spec": {"nodeName": node} if node else {},
        "status": {key: status[key] for key in _POD_STATUS if key in status},
    }


def slim_job(body: Mapping[str, Any]) -> Body:
    """A Job without its pods' template: that never changes, and the digest of its manifest is among its annotations."""
    return {**slim(body), "spec": {key: value for key, value in body.get("spec", {}).items() if key != "template"}}


_SLIM = {POD: slim_pod, "Job": slim_job}


class Entry(NamedTuple):
    """A cached object: what is asked for often, and the rest packed."""

    uid: str
    version: str
    # Of a pool, which has none: all of it that its subjects depend on.
    phase: str
    # Under which references it is found: `_references`.
    found_by: tuple[tuple[str, ...], ...]
    packed: bytes

    @classmethod
    def of(cls, kind: str, body: Mapping[str, Any]) -> "Entry":
        """An object, packed."""
        metadata = body["metadata"]
        phase = _standing(body) if kind == names.POOL_KIND else str((body.get("status") or {}).get("phase") or "")
        packed = to_json(_SLIM.get(kind, slim)(body))
        uid, version = metadata.get("uid", ""), metadata.get("resourceVersion", "")
        return cls(uid, version, phase, tuple(_references(kind, body)), packed)

    def unpack(self) -> Body:
        """The whole object, a fresh copy."""
        return from_json(self.packed)


class Caches:
    """Objects by kind, namespace and name."""

    def __init__(self) -> None:
        self._entries: dict[str, dict[Name, Entry]] = {kind: {} for kind in (*OWN_KINDS, *CHILD_KINDS, POD)}
        self._index: dict[tuple[str, ...], dict[Name, None]] = {}
        self._phases: dict[str, Counter[str]] = {kind: Counter() for kind in self._entries}
        # Grows with every change of a model, a pool, or a pod of theirs: of what routes are made of.
        self.served = 0

    def put(self, kind: str, body: Mapping[str, Any]) -> bool:
        """Keep an object in the place of any earlier one of its name; False when it is the one that is there, or older
        than that: a watch may be told a second time what was."""
        metadata = body["metadata"]
        name = (metadata["namespace"], metadata["name"])
        uid, version = metadata.get("uid", ""), metadata.get("resourceVersion", "")
        old = self._entries[kind].get(name)
        if old and old.uid == uid and version and not newer(version, old.version):
            return False
        if old:
            self.drop(kind, *name)
        entry = self._entries[kind][name] = Entry.of(kind, body)
        self._phases[kind][entry.phase] += 1
        self.served += _serves(kind, entry.found_by)
        for key in entry.found_by:
            self._index.setdefault(key, {})[name] = None
        return True

    def drop(self, kind: str, namespace: str, name: str) -> Entry | None:
        """Forget an object; returns what was known of it."""
        entry = self._entries[kind].pop((namespace, name), None)
        if entry is None:
            return None
        self._phases[kind][entry.phase] -= 1
        self.served += _serves(kind, entry.found_by)
        for key in entry.found_by:
            self._index[key].pop((namespace, name), None)
            if not self._index[key]:
                del self._index[key]
        return entry

    def keys(self, kind: str, namespace: str = "") -> list[Name]:
        """Names of a kind's objects; of one namespace or of all."""
        return [key for key in self._entries[kind] if not namespace or key[0] == namespace]

    def entry(self, kind: str, namespace: str, name: str) -> Entry | None:
        """What is known of an object without unpacking it."""
        return self._entries[kind].get((namespace, name))

    def phases(self, kind: str) -> Mapping[str, int]:
        """How many objects of a kind are in which phase."""
        return self._phases[kind]

    def get(self, kind: str, namespace: str, name: str) -> Body | None:
        """An object by its name."""
        entry = self.entry(kind, namespace, name)
        return entry.unpack() if entry else None

    def all(self, kind: str) -> Iterator[Body]:
        """Every object of a kind."""
        for entry in list(self._entries[kind].values()):
            yield entry.unpack()

    def pods(self, namespace: str, label: str, owner: str) -> list[Body]:
        """Pods that carry a label, by name."""
        return [self._entries[POD][key].unpack() for key in self._found("pods", namespace, label, owner)]

    def every_pod(self) -> Iterable[Body]:
        """Every pod of ours."""
        return self.all(POD)

    def models_of_job(self, namespace: str, job: str) -> list[str]:
        """Names of models whose `jobRef` names the job."""
        return [name for _, name in self._found("models_by_job", namespace, job)]

    def jobs_publishing(self, namespace: str, model: str) -> list[str]:
        """Names of jobs that publish under the name."""
        return [name for _, name in self._found("jobs_by_model", namespace, model)]

    def models_of_pool(self, namespace: str, pool: str) -> list[str]:
        """Names of models that the pool serves."""
        return [name for _, name in self._found("models_by_pool", namespace, pool)]

    def models_with_keys(self) -> dict[Name, list[str]]:
        """Models that API keys open, by the namespace and name of the Secret that holds them."""
        found = [key for key in self._index if key[0] == "models_by_keys"]
        return {(key[1], key[2]): [name for _, name in self._found(*key)] for key in found}

    def entries(self, kind: str) -> Iterator[tuple[Name, Entry]]:
        """Every object of a kind, not unpacked."""
        yield from list(self._entries[kind].items())

    def _found(self, *key: str) -> list[Name]:
        return sorted(self._index.get(key, ()))


def newer(version: str, known: str) -> bool:
    """Whether a resource version is a later one than another of the same kind."""
    # Resource versions of one kind are comparable (KEP-5504).
    return int(version) > int(known) if version.isdigit() and known.isdigit() else version != known


def _references(kind: str, body: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Keys under which an object is to be found, besides its name. Of users' objects no shape is taken for granted."""
    namespace = body["metadata"]["namespace"]
    if kind == POD:
        labels = body["metadata"].get("labels") or {}
        for label in (names.LABEL_JOB, names.LABEL_MODEL, names.LABEL_POOL):
            if label in labels:
                yield "pods", namespace, label, labels[label]
    elif kind == names.MODEL_KIND:
        if job := named(body, "jobRef"):
            yield "models_by_job", namespace, job
        if pool := pool_of(body):
            yield "models_by_pool", namespace, pool
        if secret := keys_of(body):
            yield "models_by_keys", namespace, secret
    elif kind == names.JOB_KIND and (model := named(body, "publish")):
        yield "jobs_by_model", namespace, model


def named(body: Mapping[str, Any], field: str) -> str | None:
    """`spec.<field>.name`, if it is one."""
    return _text_at(body, "spec", field, "name")


def pool_of(body: Mapping[str, Any]) -> str | None:
    """The pool that a model names, if it is served by one. The API server has filled in the default."""
    shared = _text_at(body, "spec", "serving", "mode") == ServingMode.SHARED
    return _text_at(body, "spec", "serving", "pool") or Serving().pool if shared else None


def keys_of(body: Mapping[str, Any]) -> str | None:
    """The Secret with the API keys that open a model."""
    return _text_at(body, "spec", "serving", "access", "secret")


def _text_at(body: Mapping[str, Any], *path: str) -> str | None:
    found: Any = body
    for key in path:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found if isinstance(found, str) else None


def _serves(kind: str, found_by: tuple[tuple[str, ...], ...]) -> bool:
    """Whether routes may depend on an object: not on a training's pods, of which there are many."""
    if kind == POD:
        return any(key[2] != names.LABEL_JOB for key in found_by)
    return kind in (names.MODEL_KIND, names.POOL_KIND)


def _standing(body: Mapping[str, Any]) -> str:
    """A pool's generation, and its Ready condition."""
    status = body.get("status")
    conditions = status.get("conditions") if isinstance(status, Mapping) else None
    ready = [c for c in conditions or [] if isinstance(c, Mapping) and c.get("type") == "Ready"]
    said = [f"{c.get('status')} {c.get('reason') if c.get('status') != 'True' else ''}" for c in ready]
    return " ".join([str(body["metadata"].get("generation")), *said])
