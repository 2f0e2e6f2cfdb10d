"""Which replica leads: a `coordination.k8s.io` Lease, after client-go's leader election.

(tools/leaderelection/leaderelection.go: others' clocks are not trusted, a lease has expired when it was not *seen* to
change for its duration; updates carry the version that was read; on a graceful end the lease is given back. kubernetes'
own `kubernetes.aio.leaderelection` measures by the wall clock, counts from the answer instead of from the request,
does not give back, and has no fence.)
"""

import asyncio
import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from dreambooth_operator.cluster import ApiFault, Cluster
from dreambooth_operator.fence import MARGIN, Fence
from dreambooth_operator.views import Body

# Seconds. A leader that was killed is followed after at most DURATION + LOOK and the time of a request.
DURATION, RENEW, LOOK = 12, 3.0, 1.0

logger = logging.getLogger(__name__)


@dataclass
class Lease:
    """One replica's view of the lease."""

    cluster: Cluster
    fence: Fence
    namespace: str
    name: str
    identity: str
    duration: int = DURATION
    renew: float = RENEW
    look: float = LOOK
    _seen: Body | None = None
    _seen_at: float = 0.0
    _until: float = 0.0

    async def acquire(self) -> None:
        """Wait until this replica leads."""
        while not await self._attempt():
            await asyncio.sleep(self.look)
        logger.info("%s leads", self.identity)

    async def keep(self) -> None:
        """Renew; returns when the lease is lost, at the latest before another replica can have it."""
        pause = self.renew
        while True:
            await asyncio.sleep(pause)
            pause = self.renew if await self._attempt() else self.look
            taken = self._seen is not None and not self._mine()
            if taken or time.monotonic() > self._until - MARGIN:
                self.fence.close()
                logger.error("%s lost the lease: it stands by", self.identity)
                return

    async def release(self) -> None:
        """Give the lease back: the next replica need not wait for it to expire."""
        self.fence.close()
        if self._seen and self._mine():
            try:
                await self.cluster.write_lease(self._manifest(holder=""))
                logger.info("%s gave the lease back", self.identity)
            except ApiFault as e:
                logger.warning("the lease was not given back: %s", e)

    async def _attempt(self) -> bool:
        """Take or renew the lease, if it is ours to take. The fence opens from when the request was *sent*."""
        try:
            if self._seen is None or not self._mine():
                self._look(await self.cluster.read_lease(self.namespace, self.name))
            if self._seen and not self._mine() and not self._expired():
                return False
            begun = time.monotonic()
            self._look(await self.cluster.write_lease(self._manifest(self.identity)))
            self._until = begun + self.duration
            self.fence.open(self._until)
            return True
        except ApiFault as e:
            if e.status in (404, 409):
                self._seen = None
            logger.debug("the lease: %s", e)
            return False

    def _look(self, lease: Body | None) -> None:
        version = lease and lease["metadata"]["resourceVersion"]
        if lease is None or self._seen is None or version != self._seen["metadata"]["resourceVersion"]:
            self._seen, self._seen_at = lease, time.monotonic()

    def _mine(self) -> bool:
        return bool(self._seen and self._seen["spec"].get("holderIdentity") == self.identity)

    def _expired(self) -> bool:
        spec = (self._seen or {}).get("spec", {})
        if not spec.get("holderIdentity"):
            return True
        return time.monotonic() - self._seen_at > float(spec.get("leaseDurationSeconds") or self.duration)

    def _manifest(self, holder: str) -> Body:
        old = (self._seen or {}).get("spec", {})
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        change = old.get("holderIdentity") != holder
        metadata: Body = {"name": self.name, "namespace": self.namespace}
        if self._seen:
            metadata["resourceVersion"] = self._seen["metadata"]["resourceVersion"]
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": metadata,
            "spec": {
                "holderIdentity": holder,
                "leaseDurationSeconds": self.duration if holder else 1,
                "acquireTime": now if change else old.get("acquireTime"),
                "renewTime": now,
                "leaseTransitions": int(old.get("leaseTransitions") or 0) + int(bool(change and holder)),
            },
        }
