"""Puts the operator together: client, queue, workers, kopf's watches, and the two HTTP ports."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

import aiohttp
import kopf
from prometheus_client import REGISTRY

from dreambooth_api import names
from dreambooth_operator import handlers, metrics, web
from dreambooth_operator.caches import Caches
from dreambooth_operator.cluster import connect
from dreambooth_operator.health import TICK, Health
from dreambooth_operator.queue import WorkQueue
from dreambooth_operator.reconcile import Reconciler
from dreambooth_operator.settings import Settings
from dreambooth_operator.views import Key

logger = logging.getLogger(__name__)


async def run(settings: Settings) -> None:
    """The operator's life. Raises what ended it, if that was not a signal."""
    queue: WorkQueue[Key] = WorkQueue()
    caches = Caches({})
    health = Health(oldest=queue.oldest)
    cluster = await connect()
    async with aiohttp.ClientSession() as session, _serving(settings, caches, health):
        reconciler = Reconciler(cluster, caches, settings, queue, session)
        registry, kopf_settings = kopf.OperatorRegistry(), kopf.OperatorSettings()
        handlers.configure(kopf_settings)
        handlers.register(registry, caches, queue.add, reconciler.forget, health)
        workers = [asyncio.create_task(queue.work(reconciler.reconcile)) for _ in range(settings.workers)]
        ticker = asyncio.create_task(_tick(health))
        try:
            await kopf.operator(
                registry=registry,
                settings=kopf_settings,
                clusterwide=not settings.namespaces,
                namespaces=settings.namespaces,
                standalone=True,
            )
        finally:
            # SIGTERM: what is being written is finished by nobody; the next operator finds it as it is.
            for task in (*workers, ticker):
                task.cancel()
            await asyncio.gather(*workers, ticker, return_exceptions=True)
            await cluster.close()


@contextlib.asynccontextmanager
async def _serving(settings: Settings, caches: Caches, health: Health) -> AsyncIterator[None]:
    census = metrics.Census(lambda: caches.all(names.JOB_KIND), lambda: caches.all(names.MODEL_KIND))
    REGISTRY.register(census)
    runners = [
        await web.listen(web.health_app(health), settings.health_port),
        await web.listen(web.metrics_app(REGISTRY, caches.every_pod), settings.metrics_port),
    ]
    try:
        yield
    finally:
        for runner in runners:
            await runner.cleanup()
        REGISTRY.unregister(census)


async def _tick(health: Health) -> None:
    while True:
        health.tick()
        await asyncio.sleep(TICK)
