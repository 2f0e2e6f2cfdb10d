"""Puts the operator together: reflectors that keep the caches warm, the lease, and, while leading, the workers."""

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import kopf
from prometheus_client import REGISTRY

from dreambooth_api import names
from dreambooth_api.pool import ServingPoolStatus
from dreambooth_api.routes import GatewayReport
from dreambooth_operator import metrics, pool_status, web
from dreambooth_operator.caches import CHILD_KINDS, OWN_KINDS, POD, SELECTOR, Caches
from dreambooth_operator.cluster import Cluster, connect
from dreambooth_operator.fence import Fence
from dreambooth_operator.handlers import Handlers
from dreambooth_operator.health import TICK, Health
from dreambooth_operator.keys import Keys
from dreambooth_operator.lease import Lease
from dreambooth_operator.nodes import Nodes
from dreambooth_operator.queue import WorkQueue
from dreambooth_operator.reconcile import Reconciler
from dreambooth_operator.reflector import Reflector
from dreambooth_operator.routes import Table
from dreambooth_operator.routes_web import routes_app
from dreambooth_operator.settings import Settings
from dreambooth_operator.status import read
from dreambooth_operator.views import Body, Key

logger = logging.getLogger(__name__)


class Operator:
    """One replica. Watches always; works in terms, one after each time that the lease was won."""

    def __init__(self, settings: Settings, cluster: Cluster, fence: Fence, session: aiohttp.ClientSession) -> None:
        self._settings, self._cluster, self._fence, self._session = settings, cluster, fence, session
        self.caches = Caches()
        self._handlers = Handlers(self.caches, self._add, self._forget)
        self.reflectors = [
            Reflector(cluster, self._handlers, kind, namespace, "" if kind in OWN_KINDS else SELECTOR)
            for namespace in settings.namespaces or ("",)
            for kind in (*OWN_KINDS, *CHILD_KINDS, POD)
        ]
        self._nodes = Nodes(cluster)
        self._keys = Keys(cluster, self.caches)
        self.table = Table(self.caches, self._keys.known, lambda: self._keys.version, self._gateways)
        self._queue: WorkQueue[Key] | None = None
        self._reconciler: Reconciler | None = None
        self.health = Health(
            oldest=lambda: 0.0 if self._queue is None else self._queue.oldest(),
            longest=lambda: 0.0 if self._queue is None else self._queue.longest(),
            watches=lambda: ((f"{r.kind} {r.namespace}".strip(), r.heard, r.synced.is_set()) for r in self.reflectors),
            leading=lambda: self._queue is not None,
        )

    async def run(self) -> None:
        """Until cancelled: then the lease is given back. Raises what no part of it should."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tick())
            for reflector in self.reflectors:
                group.create_task(reflector.run(), name=f"reflector of {reflector.kind} {reflector.namespace}")
            if self._settings.watch_nodes:
                group.create_task(self._nodes.reflector.run(), name="reflector of the nodes' Leases")
            group.create_task(self._lead_when_elected())

    async def _lead_when_elected(self) -> None:
        settings = self._settings
        if not settings.lease_namespace:
            self._fence.open()
            await self._term(asyncio.Event().wait)
        lease = Lease(self._cluster, self._fence, settings.lease_namespace, settings.lease_name, settings.identity)
        try:
            while True:
                await lease.acquire()
                await self._term(lease.keep)
        finally:
            await lease.release()

    async def _term(self, last: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Work as long as `last` does: with a memory and a queue of this term's own, from all there is."""
        keeping: asyncio.Future[Any] = asyncio.ensure_future(last())
        tasks: list[asyncio.Future[None]] = []
        try:
            synced: asyncio.Future[Any] = asyncio.gather(*(r.synced.wait() for r in self.reflectors))
            await asyncio.wait([keeping, synced], return_when=asyncio.FIRST_COMPLETED)
            if not keeping.done():
                queue = self._queue = WorkQueue(lambda key, delay: metrics.QUEUE_DELAY.labels(key.kind).observe(delay))
                self._reconciler = Reconciler(
                    self._cluster,
                    self.caches,
                    self._settings,
                    queue,
                    self._session,
                    self._wrote,
                    self._keys,
                    self._nodes,
                )
                for key in self._handlers.everything():
                    queue.add(key)
                metrics.LEADER.set(1)
                tasks = [asyncio.ensure_future(queue.work(self._reconcile)) for _ in range(self._settings.workers)]
                tasks.append(asyncio.ensure_future(self._keys.run(self._add)))
                await keeping
        finally:
            metrics.LEADER.set(0)
            if self._queue is not None:
                self._queue.close()
            self._queue = self._reconciler = None
            # What is being written is finished by nobody; whoever leads next finds it as it is.
            for task in (keeping, *tasks):
                task.cancel()
            await asyncio.gather(keeping, *tasks, return_exceptions=True)

    async def _reconcile(self, key: Key) -> None:
        if reconciler := self._reconciler:
            await reconciler.reconcile(key)
            self.health.worked()

    def heard(self, report: GatewayReport) -> None:
        """A gateway reported: whoever is waited for, and sleeps, is woken at once."""
        if reconciler := self._reconciler:
            reconciler.gateways.take(report, time.monotonic())
            for key in self.table.sleeping(report):
                self._add(key)

    def _gateways(self) -> int:
        return self._reconciler.gateways.count(time.monotonic()) if self._reconciler else 0

    def _wrote(self, body: Body) -> None:
        for reflector in self.reflectors:
            if reflector.kind == body["kind"] and reflector.namespace in ("", body["metadata"]["namespace"]):
                reflector.wrote(body)

    def _add(self, key: Key, after: float = 0.0) -> None:
        # An empty queue is falsy.
        if self._queue is not None:
            self._queue.add(key, after)

    def _forget(self, uid: str) -> None:
        if self._reconciler:
            self._reconciler.forget(uid)

    async def _tick(self) -> None:
        while True:
            self.health.tick()
            await asyncio.sleep(TICK)


async def run(settings: Settings) -> None:
    """The operator's life in a process of its own, in kopf's frame: signals, log-in, start and end."""
    registry, frame = kopf.OperatorRegistry(), kopf.OperatorSettings()
    frame.posting.enabled = False
    # kopf watches nothing: its indexes keep what vanished while a watch was down, and it hides bookmarks.
    frame.scanning.disabled = True
    stop = asyncio.Event()
    life: list[asyncio.Task[None]] = []

    @kopf.on.startup(registry=registry)
    async def _start(**_: object) -> None:
        life.append(asyncio.create_task(_live(settings)))
        life[0].add_done_callback(lambda _: stop.set())

    @kopf.on.cleanup(registry=registry)
    async def _end(**_: object) -> None:
        for task in life:
            task.cancel()
        await asyncio.wait(life)

    kopf.on.login(registry=registry)(_login)
    await kopf.operator(registry=registry, settings=frame, clusterwide=True, standalone=True, stop_flag=stop)
    for task in life:
        if not task.cancelled():
            task.result()


def _login(**kwargs: object) -> kopf.ConnectionInfo | None:
    return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)  # type: ignore[arg-type]


async def _live(settings: Settings) -> None:
    fence = Fence()
    cluster = await connect(fence)
    try:
        async with aiohttp.ClientSession() as session:
            operator = Operator(settings, cluster, fence, session)
            async with _serving(settings, operator):
                await operator.run()
    finally:
        await cluster.close()


@contextlib.asynccontextmanager
async def _serving(settings: Settings, operator: Operator) -> AsyncIterator[None]:
    caches, leading = operator.caches, operator.health.leading

    def pools() -> Mapping[str, int]:
        """They are few."""
        found = caches.all(names.POOL_KIND) if leading() else ()
        return Counter(pool_status.phase(read(ServingPoolStatus, pool)) for pool in found)

    census = metrics.Census(
        lambda: caches.phases(names.JOB_KIND) if leading() else {},
        lambda: caches.phases(names.MODEL_KIND) if leading() else {},
        pools,
    )
    REGISTRY.register(census)
    runners = [
        await web.listen(web.health_app(operator.health), settings.health_port),
        await web.listen(web.metrics_app(REGISTRY, caches.every_pod), settings.metrics_port),
    ]
    if settings.gateway_token_file:
        app = routes_app(operator.table, Path(settings.gateway_token_file), operator.heard, leading)
        runners.append(await web.listen(app, settings.routes_port))
    try:
        yield
    finally:
        for runner in runners:
            await runner.cleanup()
        REGISTRY.unregister(census)
