"""The informers' caches: what kopf's indexes hold, by the keys that observing needs. No I/O."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from dreambooth_api import names
from dreambooth_operator.views import Body

# Kinds of children, and the label that selects them at the API server: only what is ours is cached.
CHILD_KINDS = ("Job", "Deployment", "HorizontalPodAutoscaler", "Service", "ConfigMap")
SELECTOR = f"{names.LABEL_MANAGED_BY}={names.MANAGER}"

_POD_METADATA = ("name", "namespace", "uid", "labels", "annotations", "ownerReferences", "creationTimestamp",
                 "deletionTimestamp")  # fmt: skip
_POD_STATUS = ("phase", "reason", "message", "podIP", "conditions", "containerStatuses")


def slim(body: Mapping[str, Any]) -> Body:
    """An object without what nobody reads and costs the most memory."""
    metadata = {key: value for key, value in body["metadata"].items() if key != "managedFields"}
    return {**body, "metadata": metadata}


def slim_pod(body: Mapping[str, Any]) -> Body:
    """A pod as far as causes and progress need it."""
    status = body.get("status") or {}
    return {
        "metadata": {key: body["metadata"][key] for key in _POD_METADATA if key in body["metadata"]},
        "status": {key: status[key] for key in _POD_STATUS if key in status},
    }


class Caches:
    """Reads kopf's indexes: by (namespace, name) for objects, by (namespace, label, owner) for pods."""

    def __init__(self, indices: Mapping[str, Any]) -> None:
        self._indices = indices

    def bind(self, indices: Mapping[str, Any]) -> None:
        """Read these from now on: kopf has them only once it starts."""
        self._indices = indices

    def get(self, kind: str, namespace: str, name: str) -> Body | None:
        """An object by its name."""
        return self._one(kind.lower(), (namespace, name))

    def all(self, kind: str) -> Iterator[Body]:
        """Every object of a kind."""
        for key in list(self._index(kind.lower())):
            yield from self._each(kind.lower(), key)

    def pods(self, namespace: str, label: str, owner: str) -> list[Body]:
        """Pods that carry a label, by name."""
        return sorted(self._each("pod", (namespace, label, owner)), key=lambda pod: pod["metadata"]["name"])

    def every_pod(self) -> Iterable[Body]:
        """Every pod of ours."""
        return self.all("pod")

    def models_of_job(self, namespace: str, job: str) -> list[Body]:
        """Models whose `jobRef` names the job."""
        return list(self._each("models_by_job", (namespace, job)))

    def jobs_publishing(self, namespace: str, model: str) -> list[Body]:
        """Jobs that publish under the name."""
        return list(self._each("jobs_by_model", (namespace, model)))

    def _one(self, index: str, key: Any) -> Body | None:
        # Two objects of one name: the old one's deletion was not heard of yet.
        return max(self._each(index, key), key=lambda b: b["metadata"].get("creationTimestamp", ""), default=None)

    def _each(self, index: str, key: Any) -> Iterator[Body]:
        found = self._index(index)
        yield from list(found.get(key, ()))

    def _index(self, name: str) -> Mapping[Any, Any]:
        # Before kopf is up there are none.
        return self._indices.get(name, {})
