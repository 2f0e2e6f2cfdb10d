"""kopf's part: watches and indexes. Every event does one thing: it puts a key into the queue."""

from collections.abc import Awaitable, Callable
from typing import Any

import kopf

from dreambooth_api import names
from dreambooth_operator.caches import CHILD_KINDS, SELECTOR, Caches, slim, slim_pod
from dreambooth_operator.cluster import RESOURCES
from dreambooth_operator.health import Health
from dreambooth_operator.views import Body, Key

OWN = (names.JOB_KIND, names.MODEL_KIND)
Add = Callable[[Key], None]
Forget = Callable[[str], None]


class NoStorage(kopf.DiffBaseStorage, kopf.ProgressStorage):
    """kopf keeps nothing on users' objects: everything here is level-triggered."""

    def build(self, *, body: Any, extra_fields: Any = None) -> Any:
        return {}

    def fetch(self, **_: Any) -> Any:
        return None

    def store(self, **_: Any) -> None:
        return None

    def purge(self, **_: Any) -> None:
        return None

    def touch(self, **_: Any) -> None:
        return None

    def clear(self, *, essence: Any) -> Any:
        return essence


def configure(settings: kopf.OperatorSettings) -> None:
    """kopf's settings."""
    settings.persistence.finalizer = names.FINALIZER
    settings.persistence.diffbase_storage = NoStorage()
    settings.persistence.progress_storage = NoStorage()
    settings.posting.enabled = False
    # Neither namespaces nor CRDs need be read: they are there before the operator, and stay.
    settings.scanning.disabled = True
    settings.networking.request_timeout = 60
    settings.networking.connect_timeout = 10
    settings.watching.connect_timeout = 10
    settings.watching.server_timeout = 600
    settings.watching.chunk_size = 500
    for kind in CHILD_KINDS:
        group, _, _ = RESOURCES[kind].api_version.rpartition("/")
        settings.watching.label_selectors[group, RESOURCES[kind].plural] = SELECTOR
    settings.watching.label_selectors["", "pods"] = SELECTOR


def selector(kind: str) -> tuple[str, str, str]:
    """A kind as kopf's decorators take it."""
    resource = RESOURCES[kind]
    group, _, version = resource.api_version.rpartition("/")
    return group, version, resource.plural


def register(registry: kopf.OperatorRegistry, caches: Caches, add: Add, forget: Forget, health: Health) -> None:
    """All watches and indexes."""
    kopf.on.login(registry=registry)(_login)
    kopf.on.startup(registry=registry)(_binding(caches))
    for kind in (*OWN, *CHILD_KINDS):
        kopf.index(*selector(kind), id=kind.lower(), registry=registry)(_by_name)
    kopf.index("", "v1", "pods", id="pod", registry=registry)(_pods_by_owner)
    kopf.index(*selector(names.MODEL_KIND), id="models_by_job", registry=registry)(_models_by_job)
    kopf.index(*selector(names.JOB_KIND), id="jobs_by_model", registry=registry)(_jobs_by_model)
    for kind in OWN:
        kopf.on.event(*selector(kind), id=f"event-{kind.lower()}", registry=registry)(
            _own_event(kind, caches, add, forget, health)
        )
    for kind in CHILD_KINDS:
        kopf.on.event(*selector(kind), id=f"event-{kind.lower()}", registry=registry)(_child_event(add, health))
    kopf.on.event("", "v1", "pods", id="event-pod", registry=registry)(_child_event(add, health))


def _login(**kwargs: Any) -> kopf.ConnectionInfo | None:
    return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)


def _binding(caches: Caches) -> Callable[..., Awaitable[None]]:
    """kopf hands its indexes to handlers, by their ids; the workers need them, too."""

    async def bind(**indices: Any) -> None:
        caches.bind(indices)

    return bind


async def _by_name(body: kopf.Body, namespace: str | None, name: str, **_: Any) -> dict[Any, Body]:
    return {(namespace, name): slim(body)}


async def _pods_by_owner(body: kopf.Body, namespace: str | None, labels: kopf.Labels, **_: Any) -> dict[Any, Body]:
    owners = [(key, labels[key]) for key in (names.LABEL_JOB, names.LABEL_MODEL) if key in labels]
    return {(namespace, *owner): slim_pod(body) for owner in owners}


async def _models_by_job(body: kopf.Body, namespace: str | None, **_: Any) -> dict[Any, Body]:
    job = (body.get("spec", {}).get("jobRef") or {}).get("name")
    return {(namespace, job): _identity(body)} if job else {}


async def _jobs_by_model(body: kopf.Body, namespace: str | None, **_: Any) -> dict[Any, Body]:
    model = (body.get("spec", {}).get("publish") or {}).get("name")
    return {(namespace, model): _identity(body)} if model else {}


def _identity(body: kopf.Body) -> Body:
    return {"metadata": {key: body["metadata"][key] for key in ("namespace", "name", "uid")}}


def _own_event(kind: str, caches: Caches, add: Add, forget: Forget, health: Health) -> Callable[..., Awaitable[None]]:
    """A job's or model's event: it is reconciled, and so are those of the other kind that look at it."""

    async def handle(event: kopf.RawEvent, namespace: str | None, name: str | None, uid: str | None, **_: Any) -> None:
        # Both kinds are namespaced, and what lives has a name and a uid.
        namespace, name = str(namespace), str(name)
        health.heard()
        if event["type"] == "DELETED":
            forget(str(uid))
        add(Key(kind, namespace, name))
        if kind == names.JOB_KIND:
            related, other = caches.models_of_job(namespace, name), names.MODEL_KIND
        else:
            related, other = caches.jobs_publishing(namespace, name), names.JOB_KIND
        for body in related:
            add(Key(other, namespace, body["metadata"]["name"]))

    return handle


def _child_event(add: Add, health: Health) -> Callable[..., Awaitable[None]]:
    """A child's or pod's event: the one whose label it carries is reconciled."""

    async def handle(namespace: str | None, labels: kopf.Labels, **_: Any) -> None:
        assert namespace
        health.heard()
        for label, kind in ((names.LABEL_JOB, names.JOB_KIND), (names.LABEL_MODEL, names.MODEL_KIND)):
            if owner := labels.get(label):
                add(Key(kind, namespace, owner))

    return handle
