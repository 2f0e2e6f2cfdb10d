"""Keeps a kind's cache as the API server has it: list, then watch; after client-go's Reflector.

(tools/cache/reflector.go: a watch that ends goes on from the last version seen; 410 lists anew; a complete list says
what is gone, too. What it has no answer to, a watch that falls silent, is opened anew here after `SILENCE`.)
"""

import asyncio
import contextlib
import logging
import random
import time
from dataclasses import dataclass, field
from typing import Protocol

from dreambooth_operator import metrics
from dreambooth_operator.caches import newer
from dreambooth_operator.cluster import RESOURCES, ApiFault, Cluster
from dreambooth_operator.views import Body

# A watch that says nothing for so long is opened anew from where it was: that costs one request, seconds.
SILENCE = 30.0
# A listing takes a page of so many objects at a time.
PAGE = 500
FIRST_PAUSE, LAST_PAUSE = 0.2, 15.0
GONE = 410

logger = logging.getLogger(__name__)


class Sink(Protocol):
    """Where objects go."""

    def changed(self, kind: str, body: Body, /) -> None:
        """An object was seen, perhaps not for the first time."""

    def gone(self, kind: str, namespace: str, name: str, uid: str = "", /) -> None:
        """An object is gone, unless another one (`uid`) has its name by now."""

    def replace(self, kind: str, namespace: str, present: set[tuple[str, str]], /) -> None:
        """A list was complete: whatever it did not hold (of a namespace, or "" for all) is gone."""


@dataclass
class Reflector:
    """One kind, in one namespace or ("") in all."""

    cluster: Cluster
    sink: Sink
    kind: str
    namespace: str
    selector: str
    silence: float = SILENCE
    # When the API server last said anything about this kind, on the monotonic clock.
    heard: float = field(default_factory=time.monotonic)
    # When it last failed to list or to watch, on the same clock.
    broken: float = float("-inf")
    synced: asyncio.Event = field(default_factory=asyncio.Event)
    _version: str = ""

    def wrote(self, body: Body) -> None:
        """What the API server answered a write of ours with, ahead of the watch. One that is past that version has told
        of it, and perhaps of its deletion since."""
        if self._version and newer(body["metadata"]["resourceVersion"], self._version):
            self.sink.changed(self.kind, body)

    async def run(self) -> None:
        """Until cancelled."""
        failures = 0
        while True:
            begun = time.monotonic()
            try:
                if not self._version:
                    await self._list()
                    self.synced.set()
                await self._watch()
                await asyncio.sleep(FIRST_PAUSE)
            except ApiFault as e:
                # What worked for a while and then broke has not failed again and again.
                failures = 1 if time.monotonic() - begun > LAST_PAUSE else failures + 1
                await self._failed(e, failures)

    async def _failed(self, fault: ApiFault, failures: int) -> None:
        self.broken = time.monotonic()
        if fault.status:
            self.heard = self.broken
        if fault.status == GONE:
            self._version = ""
        metrics.WATCH_ERRORS.labels(self.kind, str(fault.status)).inc()
        pause = min(FIRST_PAUSE * 2 ** min(failures - 1, 10), LAST_PAUSE)
        log = logger.warning if failures > 3 else logger.debug
        log("%s: watching: %s; again in %.1f s", self.kind, fault, max(pause, fault.retry_after))
        # Spread: many watches that were cut at the same moment do not come back at the same moment.
        await asyncio.sleep(max(pause * random.uniform(0.5, 1.0), fault.retry_after))

    async def _list(self) -> None:
        """Everything, page by page. Raises ApiFault, with 410 when the pages expired half-way."""
        present: set[tuple[str, str]] = set()
        version = ""
        coming: asyncio.Task[Body] | None = self._page("")
        try:
            while coming:
                page = await coming
                self.heard = time.monotonic()
                version, token = page["metadata"]["resourceVersion"], page["metadata"].get("continue")
                # The API server makes the next one while this one is taken in.
                coming = self._page(token) if token else None
                # A page is hundreds of objects; others have work, too.
                await asyncio.sleep(0)
                present |= self._take_in(page["items"])
                # Not two of them in memory.
                del page
        finally:
            if coming:
                coming.cancel()
        self.sink.replace(self.kind, self.namespace, present)
        self._version = version

    def _page(self, token: str) -> asyncio.Task[Body]:
        return asyncio.create_task(self.cluster.list_page(self.kind, self.namespace, self.selector, PAGE, token))

    def _take_in(self, bodies: list[Body]) -> set[tuple[str, str]]:
        """Objects of a list; returns their names."""
        for body in bodies:
            # The items of a list of Kubernetes' own kinds do not say what they are.
            body |= {"apiVersion": RESOURCES[self.kind].api_version, "kind": self.kind}
            self.sink.changed(self.kind, body)
        return {(body["metadata"]["namespace"], body["metadata"]["name"]) for body in bodies}

    async def _watch(self) -> None:
        """Events until the server ends the watch, or it falls silent. Raises ApiFault."""
        watch = self.cluster.watch(self.kind, self.namespace, self.selector, self._version, self.silence)
        async with contextlib.aclosing(watch) as events:
            async for event in events:
                self.heard = time.monotonic()
                if event:
                    self._take(event["type"], event["object"])

    def _take(self, change: str, body: Body) -> None:
        if change == "ERROR":
            raise ApiFault(int(body.get("code") or 0), str(body.get("message") or "the watch failed"))
        metadata = body["metadata"]
        if change == "DELETED":
            self.sink.gone(self.kind, metadata["namespace"], metadata["name"], metadata.get("uid", ""))
        elif change in ("ADDED", "MODIFIED"):
            self.sink.changed(self.kind, body)
        self._version = metadata["resourceVersion"]
