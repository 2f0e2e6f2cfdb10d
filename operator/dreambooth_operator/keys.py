"""API keys from Secrets: only those that models name, read by name, kept as hashes."""

import asyncio
import base64
import binascii
import hashlib
import logging
import time
from collections.abc import Callable

from dreambooth_api import names
from dreambooth_operator.caches import Caches
from dreambooth_operator.cluster import ApiFault, Cluster
from dreambooth_operator.views import Key

# How old what is known of a Secret may be, and how often that is looked at, seconds.
FRESH, LOOK = 30.0, 5.0

logger = logging.getLogger(__name__)
Name = tuple[str, str]


def hashed(data: dict[str, str]) -> dict[str, str]:
    """A Secret's data as name → SHA-256 of the key, hex. Space around a key is none of it: `echo` writes a newline;
    and an empty key would open to everybody."""
    found = {}
    for name, value in sorted(data.items()):
        try:
            key = base64.b64decode(value or "", validate=True).strip()
        except binascii.Error:
            continue
        if key:
            found[name] = hashlib.sha256(key).hexdigest()
    return found


class Keys:
    """The keys of all Secrets that models name. What is not known opens nothing."""

    def __init__(self, cluster: Cluster, caches: Caches) -> None:
        self._cluster, self._caches = cluster, caches
        self._known: dict[Name, dict[str, str]] = {}
        self._read: dict[Name, float] = {}
        # Grows with every change.
        self.version = 0

    def known(self, namespace: str, secret: str) -> dict[str, str]:
        """Name of a key → its hash; empty when the Secret is not there, or was never read."""
        return self._known.get((namespace, secret), {})

    async def of(self, namespace: str, secret: str) -> dict[str, str]:
        """The same, of a Secret that is read now if it never was. Raises ApiFault."""
        if (namespace, secret) not in self._read:
            await self._refresh((namespace, secret))
        return self.known(namespace, secret)

    async def run(self, changed: Callable[[Key], None]) -> None:
        """Read again what is not fresh, until cancelled; `changed`: a model whose Secret came, or went."""
        while True:
            await asyncio.sleep(LOOK)
            wanted = self._caches.models_with_keys()
            for name in self._read.keys() - wanted.keys():
                self._known.pop(name, None)
                del self._read[name]
            for name, models in wanted.items():
                if time.monotonic() - self._read.get(name, float("-inf")) < FRESH:
                    continue
                before = bool(self._known.get(name))
                try:
                    await self._refresh(name)
                except ApiFault as e:
                    logger.warning("the Secret %s/%s was not read, its keys stay: %s", *name, e)
                    continue
                if before != bool(self._known.get(name)):
                    for model in models:
                        changed(Key(names.MODEL_KIND, name[0], model))

    async def _refresh(self, name: Name) -> None:
        found = hashed(await self._cluster.secret(*name) or {})
        self._read[name] = time.monotonic()
        if found != self._known.get(name):
            self._known[name] = found
            self.version += 1
