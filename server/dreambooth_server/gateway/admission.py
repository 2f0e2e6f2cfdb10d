"""Who may ask, and how often. What a gateway holds of a key is its SHA-256."""

import hashlib
import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass

from dreambooth_api.routes import KeyCheck, Route
from dreambooth_server.errors import ApiError
from dreambooth_server.gateway.table import Subject, Table

_MINUTE = 60.0


@dataclass
class _Bucket:
    tokens: float
    filled: float
    full: float
    """When it will be full."""


class Rates:
    """A token bucket for each key: full it lets a minute's requests through at once, one at least, and it fills at the
    key's rate."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[tuple[str, str], _Bucket] = {}

    def take(self, namespace: str, key: str, per_minute: float) -> float:
        """0 when the key's next request may pass; else how many seconds too early it is."""
        now, room = self._clock(), max(1.0, per_minute)
        bucket = self._buckets.setdefault((namespace, key), _Bucket(room, now, now))
        bucket.tokens = min(room, bucket.tokens + (now - bucket.filled) * per_minute / _MINUTE)
        bucket.filled = now
        passes = bucket.tokens >= 1
        bucket.tokens -= passes
        bucket.full = now + (room - bucket.tokens) * _MINUTE / per_minute
        return 0.0 if passes else (1 - bucket.tokens) * _MINUTE / per_minute

    def forget_full(self) -> None:
        """Drop the buckets that are full: a new one would be, too."""
        now = self._clock()
        self._buckets = {key: bucket for key, bucket in self._buckets.items() if now < bucket.full}


class Admission:
    """The door of every subject."""

    def __init__(self, table: Table, clock: Callable[[], float] = time.monotonic) -> None:
        self._table, self._rates = table, Rates(clock)
        self._known: frozenset[tuple[str, str]] = frozenset()

    def routes_changed(self) -> None:
        """The table is another."""
        self._known = frozenset(
            (namespace, digest)
            for (namespace, _), route in self._table.routes.items()
            if route.access
            for digest in route.access.keys.values()
        )
        self._rates.forget_full()

    def admit(self, subject: Subject, authorization: str | None) -> tuple[Route, str | None]:
        """The subject's route, and the name of the key that opens it; None where none is needed.

        Raises ApiError: 404 for an unknown subject, 401 for no key or an unknown one, 403 for another subject's.
        """
        route = self._table.route(subject)
        if route.access is None:
            return route, None
        key = _bearer(authorization)
        if key is None:
            raise _unauthorised("An API key is needed: send Authorization: Bearer KEY.", "missing_api_key")
        digest = _sha256(key)
        if name := _named(route.access, digest):
            return route, name
        if (route.namespace, digest) in self._known:
            raise ApiError(403, f"This API key does not open {'/'.join(subject)!r}.", "key_not_allowed")
        raise _unauthorised("The API key is not known.", "invalid_api_key")

    def charge(self, route: Route, key: str | None) -> None:
        """Count a request for pictures against this gateway's share of the key's rate. Raises ApiError 429."""
        access = route.access
        if key is None or access is None or access.requests_per_minute is None:
            return
        gateways = self._table.gateways
        early = self._rates.take(route.namespace, access.keys[key], access.requests_per_minute / gateways)
        if early:
            message = f"The API key {key!r} has {access.requests_per_minute} requests a minute."
            headers = {"Retry-After": str(int(early) + 1)}
            if gateways > 1:
                # The client's next connection may lead to another gateway, whose share is not used up.
                headers["Connection"] = "close"
            raise ApiError(429, message, "rate_limit_exceeded", headers=headers)

    def opens(self, route: Route, authorization: str | None) -> bool:
        """Whether whoever sent this may know of the subject."""
        key = _bearer(authorization)
        return route.access is None or (key is not None and _named(route.access, _sha256(key)) is not None)


def _named(access: KeyCheck, digest: str) -> str | None:
    """The name of the key with this digest; takes equally long whichever it is, or none."""
    found = None
    for name, known in access.keys.items():
        if hmac.compare_digest(known.encode(), digest.encode()):
            found = name
    return found


def _bearer(authorization: str | None) -> str | None:
    scheme, _, key = (authorization or "").partition(" ")
    return key.strip() or None if scheme.lower() == "bearer" else None


def _sha256(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def _unauthorised(message: str, code: str) -> ApiError:
    return ApiError(401, message, code, headers={"WWW-Authenticate": "Bearer"})
