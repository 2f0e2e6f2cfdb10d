"""What an event does: it is put into the caches, and the keys of whom it concerns into the queue. No I/O."""

from collections.abc import Callable, Iterator

from dreambooth_api import names
from dreambooth_operator.caches import OWN_KINDS, Caches, pool_of
from dreambooth_operator.views import Body, Key

OWNERS = (
    (names.LABEL_JOB, names.JOB_KIND),
    (names.LABEL_MODEL, names.MODEL_KIND),
    (names.LABEL_POOL, names.POOL_KIND),
)
# Of a thousand models that join a pool at once, the pool need not hear one by one, seconds.
JOINED = 1.0


class Handlers:
    """The one way into the caches."""

    def __init__(self, caches: Caches, add: Callable[..., None], forget: Callable[[str], None]) -> None:
        """`add` takes a key, and after how many seconds it is to be looked at, if not at once."""
        self._caches, self._add, self._forget = caches, add, forget

    def changed(self, kind: str, body: Body) -> None:
        """An object was seen. One that is known in this very version is no news."""
        metadata = body["metadata"]
        before = self._caches.entry(kind, metadata["namespace"], metadata["name"])
        if not self._caches.put(kind, body):
            return
        if before and before.uid != metadata.get("uid"):
            # Its deletion was not heard of: another object has the name.
            self._forget(before.uid)
        self._tell(kind, metadata["namespace"], metadata["name"], metadata.get("labels") or {})
        if kind == names.MODEL_KIND:
            self._tell_pools(metadata["namespace"], pool_of(body), pool_of(before.unpack()) if before else None)
        elif kind == names.POOL_KIND:
            now = self._caches.entry(kind, metadata["namespace"], metadata["name"])
            if before is None or (now and now.phase != before.phase):
                self._tell_subjects(metadata["namespace"], metadata["name"])

    def gone(self, kind: str, namespace: str, name: str, uid: str = "") -> None:
        """An object is gone, unless another one (`uid`) has its name by now."""
        known = self._caches.entry(kind, namespace, name)
        if known is None or (uid and known.uid != uid):
            return
        body = known.unpack()
        labels = body["metadata"].get("labels") or {}
        self._caches.drop(kind, namespace, name)
        if kind in OWN_KINDS:
            self._forget(known.uid)
        self._tell(kind, namespace, name, labels)
        if kind == names.MODEL_KIND:
            self._tell_pools(namespace, pool_of(body))
        elif kind == names.POOL_KIND:
            self._tell_subjects(namespace, name)

    def _tell_pools(self, namespace: str, *pools: str | None) -> None:
        for pool in {found for found in pools if found}:
            self._add(Key(names.POOL_KIND, namespace, pool), JOINED)

    def _tell_subjects(self, namespace: str, pool: str) -> None:
        """What they depend on has changed: that the pool is there, its spec, or whether it is ready."""
        for model in self._caches.models_of_pool(namespace, pool):
            self._add(Key(names.MODEL_KIND, namespace, model))

    def replace(self, kind: str, namespace: str, present: set[tuple[str, str]]) -> None:
        """A list was complete: whatever it did not hold (of a namespace, or "" for all) is gone."""
        for key in self._caches.keys(kind, namespace):
            if key not in present:
                self.gone(kind, *key)

    def everything(self) -> Iterator[Key]:
        """Keys of all there is to look after."""
        for kind in OWN_KINDS:
            for namespace, name in self._caches.keys(kind):
                yield Key(kind, namespace, name)

    def _tell(self, kind: str, namespace: str, name: str, labels: dict[str, str]) -> None:
        """A job's or model's event concerns it and those of the other kind that look at it; a child's event, the one
        whose label it carries."""
        if kind == names.JOB_KIND:
            self._add(Key(kind, namespace, name))
            for model in self._caches.models_of_job(namespace, name):
                self._add(Key(names.MODEL_KIND, namespace, model))
        elif kind == names.MODEL_KIND:
            self._add(Key(kind, namespace, name))
            for job in self._caches.jobs_publishing(namespace, name):
                self._add(Key(names.JOB_KIND, namespace, job))
        elif kind == names.POOL_KIND:
            self._add(Key(kind, namespace, name))
        else:
            for label, owner in OWNERS:
                if label in labels:
                    self._add(Key(owner, namespace, labels[label]))
