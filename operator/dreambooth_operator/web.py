"""The operator's two HTTP ports: health, and metrics with the scrape targets."""

import asyncio
from collections.abc import Callable, Iterable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from dreambooth_operator.health import Health
from dreambooth_operator.targets import targets
from dreambooth_operator.views import Body


def health_app(health: Health) -> web.Application:
    """`/healthz` and `/readyz`: 200 or 503, with the ages that they rest on, and how many tasks there are."""

    async def healthz(_: web.Request) -> web.Response:
        alive, facts = health.alive()
        return web.json_response({**facts, "tasks": len(asyncio.all_tasks())}, status=200 if alive else 503)

    async def readyz(_: web.Request) -> web.Response:
        ready, facts = health.ready()
        return web.json_response(facts, status=200 if ready else 503)

    app = web.Application()
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    return app


def metrics_app(registry: CollectorRegistry, pods: Callable[[], Iterable[Body]]) -> web.Application:
    """`/metrics` and `/targets`."""

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def listed(_: web.Request) -> web.Response:
        return web.json_response(targets(pods()))

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/targets", listed)
    return app


async def listen(app: web.Application, port: int) -> web.AppRunner:
    """Serve `app` on every address; the runner is to be cleaned up by the caller. Raises OSError."""
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, port=port).start()
    return runner
