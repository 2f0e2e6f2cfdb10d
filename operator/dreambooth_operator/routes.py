"""Where requests go, from the caches: a route for each model, as its status says, and the replicas that are ready.

What has not changed is not made anew: of a thousand models one route, and the text around it.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass

from dreambooth_api import names
from dreambooth_api.model import PersonalizedModelSpec, PersonalizedModelStatus, Revision
from dreambooth_api.parse import InvalidResource, parse_model, parse_pool
from dreambooth_api.reasons import ConditionType
from dreambooth_api.routes import GatewayReport, KeyCheck, Replica, Route, Target
from dreambooth_api.serving import Scaling, Serving, ServingMode
from dreambooth_operator import deployments
from dreambooth_operator import status as statuses
from dreambooth_operator.caches import POD, Caches, Name
from dreambooth_operator.views import Body, Key

KeysOf = Callable[[str, str], dict[str, str]]


def route(body: Body, pool: Scaling | None, keys: KeysOf) -> Route:
    """The route of one model. `pool`: of the pool that draws it. Keys that are not known open nothing."""
    metadata, status = body["metadata"], statuses.read(PersonalizedModelStatus, body)
    namespace, name = metadata["namespace"], metadata["name"]
    targets = [_target(namespace, name, revision) for revision in status.revisions if _drawn(revision)]
    if sum(target.weight for target in targets) != 100:
        targets = []
    try:
        spec = parse_model(body).spec
        serving, access, said = spec.serving, _access(spec, namespace, keys), "" if targets else _why_not(status)
    except InvalidResource as e:
        targets, serving, access, said = [], Serving(), KeyCheck(keys={}), f"its spec is not understood: {e}"
    pooled = any(names.is_pool_backend(target.backend) for target in targets)
    scaling = pool if pooled and pool else serving
    return Route(
        namespace=namespace,
        name=name,
        mode=ServingMode.SHARED if pooled else ServingMode.DEDICATED,
        targets=targets,
        access=access,
        target_in_flight=scaling.target_in_flight,
        max_replicas=scaling.max_replicas,
        reason=said,
    )


def _drawn(revision: Revision) -> bool:
    """What has requests; and what a pool has verified, which anybody may still ask for by its digest."""
    return revision.weight > 0 or (revision.ready and names.is_pool_backend(revision.backend))


def _target(namespace: str, name: str, revision: Revision) -> Target:
    backend = revision.backend or names.model_backend(namespace, name)
    return Target(digest=revision.digest, uri=revision.uri or "", weight=revision.weight, backend=backend)


def _access(spec: PersonalizedModelSpec, namespace: str, keys: KeysOf) -> KeyCheck | None:
    access = spec.serving.access
    if access is None:
        return None
    return KeyCheck(keys=keys(namespace, access.secret), requests_per_minute=access.requests_per_minute)


def _why_not(status: PersonalizedModelStatus) -> str:
    ready = statuses.condition_of(status, ConditionType.READY)
    return f"{ready.reason}: {ready.message}" if ready and ready.status != "True" else "it was just made"


@dataclass(frozen=True)
class _Made:
    """A route, and what it was made of."""

    of: tuple[object, ...]
    backends: frozenset[str]
    text: str


@dataclass(frozen=True)
class _Pod:
    """A pod that is ready."""

    of: tuple[object, ...]
    backend: str | None
    replica: Replica | None


class Table:
    """All routes as they are now, as the JSON of `Routes`."""

    def __init__(
        self, caches: Caches, keys: KeysOf, keys_version: Callable[[], int], gateways: Callable[[], int]
    ) -> None:
        """`gateways` counts those that take requests."""
        self._caches, self._keys, self._keys_version, self._gateways = caches, keys, keys_version, gateways
        self._stamp: tuple[int, int, int] | None = None
        self._routes: dict[Name, _Made] = {}
        self._pods: dict[Name, _Pod] = {}
        self._pools: dict[Name, tuple[str, Scaling | None]] = {}
        self._backends: dict[str, list[Replica]] = {}
        self._revision, self._body = "", b""

    def current(self) -> tuple[str, bytes]:
        """(revision, body)."""
        # Whoever asks is one, also of a leader that has heard nobody yet.
        stamp = (self._caches.served, self._keys_version(), max(1, self._gateways()))
        if stamp != self._stamp:
            self._build(gateways=stamp[2])
            self._stamp = stamp
        return self._revision, self._body

    def sleeping(self, report: GatewayReport) -> set[Key]:
        """Models and pools that somebody waits for while they have no replicas."""
        self.current()
        found = set()
        for subject, load in report.loads.items():
            namespace, _, name = subject.partition("/")
            made = self._routes.get((namespace, name)) if load.waiting else None
            for backend in made.backends if made else ():
                if not self._backends.get(backend):
                    kind = names.POOL_KIND if names.is_pool_backend(backend) else names.MODEL_KIND
                    found.add(Key(kind, *backend.split("/")[1:]))
        return found

    def _build(self, gateways: int) -> None:
        self._build_pools()
        routes = {}
        for name, entry in self._caches.entries(names.MODEL_KIND):
            named = [(key[1], key[2]) for key in entry.found_by if key[0] == "models_by_pool"]
            pool = self._pools.get(named[0]) if named else None
            keys = [self._keys(*key[1:]) for key in entry.found_by if key[0] == "models_by_keys"]
            of = (entry.uid, entry.version, pool, keys)
            old = self._routes.get(name)
            routes[name] = old if old and old.of == of else self._made(entry.unpack(), pool[1] if pool else None, of)
        self._routes = routes
        self._backends = self._build_backends()
        for made in routes.values():
            for backend in made.backends:
                self._backends.setdefault(backend, [])
        self._write(gateways)

    def _made(self, body: Body, pool: Scaling | None, of: tuple[object, ...]) -> _Made:
        found = route(body, pool, self._keys)
        backends = frozenset(target.backend for target in found.targets if target.weight)
        return _Made(of, backends, found.model_dump_json(by_alias=True, exclude_none=True))

    def _build_pools(self) -> None:
        """Pools, each with the version of its spec."""
        known, self._pools = self._pools, {}
        for name, entry in self._caches.entries(names.POOL_KIND):
            generation = f"{entry.uid} {entry.phase.partition(' ')[0]}"
            old = known.get(name)
            self._pools[name] = old if old and old[0] == generation else (generation, _pool(entry.unpack()))

    def _build_backends(self) -> dict[str, list[Replica]]:
        known, self._pods = self._pods, {}
        for name, entry in self._caches.entries(POD):
            if any(key[2] != names.LABEL_JOB for key in entry.found_by):
                old, of = known.get(name), (entry.uid, entry.version)
                self._pods[name] = old if old and old.of == of else _pod(entry.unpack(), of)
        backends: dict[str, list[Replica]] = {}
        for _, pod in sorted(self._pods.items()):
            if pod.backend and pod.replica:
                backends.setdefault(pod.backend, []).append(pod.replica)
        return backends

    def _write(self, gateways: int) -> None:
        backends = {key: [pod.to_dict() for pod in pods] for key, pods in sorted(self._backends.items())}
        routes = ",".join(made.text for _, made in sorted(self._routes.items()))
        content = f'"gateways":{gateways},"backends":{json.dumps(backends, separators=(",", ":"))},"routes":[{routes}]'
        self._revision = hashlib.sha256(content.encode()).hexdigest()[:16]
        self._body = f'{{"revision":"{self._revision}",{content}}}'.encode()


def _pool(body: Body) -> Scaling | None:
    try:
        return parse_pool(body).spec
    except InvalidResource:
        return None


def _pod(pod: Body, of: tuple[object, ...]) -> _Pod:
    metadata, address = pod["metadata"], pod.get("status", {}).get("podIP")
    labels, namespace = metadata.get("labels") or {}, metadata["namespace"]
    component = labels.get(names.LABEL_COMPONENT)
    backend = None
    if component == names.COMPONENT_CANARY and names.LABEL_MODEL in labels:
        backend = names.canary_backend(namespace, labels[names.LABEL_MODEL])
    elif component == names.COMPONENT_SERVER and names.LABEL_POOL in labels:
        backend = names.pool_backend(namespace, labels[names.LABEL_POOL])
    elif component == names.COMPONENT_SERVER and names.LABEL_MODEL in labels:
        backend = names.model_backend(namespace, labels[names.LABEL_MODEL])
    if not address or not deployments.ready(pod):
        return _Pod(of, backend, None)
    host = f"[{address}]" if ":" in address else address
    return _Pod(of, backend, Replica(pod=metadata["name"], address=f"{host}:{names.SERVER_PORT}"))
