"""The routes that the gateway has, by subject."""

from collections.abc import Iterator, Sequence

from dreambooth_api import names
from dreambooth_api.routes import Replica, Route, Routes, Target
from dreambooth_server.errors import ApiError

Subject = tuple[str, str]
"""Namespace and name."""
_PINNED = 12
"""Digits of a digest that name a revision: `rex@0123456789ab`."""
_RETRY_UNREADY = "5"


class Table:
    """The last word of the operator. Before the first one there is nothing, and `known` is false."""

    def __init__(self) -> None:
        self.known = False
        self.revision = ""
        self.gateways = 1
        """How many there are that take requests, this one among them."""
        self.routes: dict[Subject, Route] = {}
        self._backends: dict[str, list[Replica]] = {}

    def replace(self, routes: Routes) -> None:
        """Go by `routes` from now on."""
        self.known, self.revision, self.gateways = True, routes.revision, routes.gateways
        self._backends = routes.backends
        self.routes = {(route.namespace, route.name): route for route in routes.routes}

    def route(self, subject: Subject) -> Route:
        """Raises ApiError: 404 for an unknown subject, 503 before the operator said anything."""
        if found := self.routes.get(subject):
            return found
        if not self.known:
            retry = {"Retry-After": _RETRY_UNREADY}
            raise ApiError(503, "The gateway has not heard from the operator yet.", "starting", headers=retry)
        name = "/".join(subject)
        raise ApiError(404, f"The model {name!r} does not exist: use namespace/name.", "model_not_found", "model")

    def targets(self, route: Route, pinned: str | None) -> Sequence[Target]:
        """The targets of `route`, or the one that `pinned` names, as `pin` does. Raises ApiError 404, 503."""
        if not route.targets:
            message = route.reason or "The model has no artifact yet."
            raise ApiError(503, message, "model_not_ready", headers={"Retry-After": _RETRY_UNREADY})
        if pinned is None:
            return route.targets
        if found := [target for target in route.targets if pin(target) == pinned]:
            return found
        known = ", ".join(f"{route.name}@{pin(target)}" for target in route.targets)
        message = f"The model has no such revision now; there are: {known}."
        raise ApiError(404, message, "model_not_found", "model")

    def replicas(self, backend: str) -> Sequence[Replica]:
        """The replicas that are ready; none: asleep, or starting."""
        return self._backends.get(backend, [])

    def pools(self) -> Iterator[str]:
        """The keys of all pools that there are or that somebody needs."""
        needed = {target.backend for route in self.routes.values() for target in route.targets}
        return (key for key in sorted(needed | self._backends.keys()) if names.is_pool_backend(key))


def pin(target: Target) -> str:
    """What names this revision of its subject: the digest's first digits."""
    return target.digest.removeprefix("sha256:")[:_PINNED]
