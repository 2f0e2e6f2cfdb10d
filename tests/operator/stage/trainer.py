"""Stands in for a training's rank 0: answers `/progress` at an address of the loopback network."""

import contextlib
from collections.abc import AsyncIterator, Callable

from aiohttp import web

from dreambooth_api.result import Report


@contextlib.asynccontextmanager
async def answering(port: int, said: dict[str, Callable[[], Report]]) -> AsyncIterator[None]:
    """Trainers at the addresses of `said`, until the block ends."""

    async def answer(request: web.Request) -> web.Response:
        assert request.transport
        address = request.transport.get_extra_info("sockname")[0]
        return web.Response(text=said[address]().model_dump_json(by_alias=True, exclude_none=True))

    app = web.Application()
    app.router.add_get("/progress", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        for address in said:
            await web.TCPSite(runner, address, port).start()
        yield
    finally:
        await runner.cleanup()
