"""Stands between the operator and the API server and does to it what networks and busy servers do."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web

from tests.operator.stage.apiserver import ApiServer


@dataclass(frozen=True)
class Refusal:
    """An answer in the API server's stead."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Request:
    """What rules decide upon."""

    method: str
    path: str
    watch: bool
    number: int

    @property
    def write(self) -> bool:
        """Whether it changes anything but a Lease."""
        return self.method != "GET" and "/leases" not in self.path


async def passes(request: Request) -> Refusal | None:
    """No fault."""
    return None


async def whole(request: Request, lines: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """A watch as it is."""
    async for line in lines:
        yield line


class Dropped(Exception):
    """Raised by a rule: the connection is cut."""


@dataclass
class Proxy:
    """Rules that a test sets, and what went through."""

    # Before the API server hears of it: a refusal, a pause, or Dropped.
    before: Callable[[Request], Awaitable[Refusal | None]] = passes
    # After the API server has done it, before the client hears of it: may raise Dropped.
    after: Callable[[Request], Awaitable[Any]] = passes
    # What becomes of a watch's lines.
    watch: Callable[[Request, AsyncIterator[bytes]], AsyncIterator[bytes]] = whole
    requests: list[Request] = field(default_factory=list)
    url: str = ""
    refused: int = 0
    _watches: dict[int, web.Request] = field(default_factory=dict)

    def cut(self) -> None:
        """Break every open watch."""
        for request in list(self._watches.values()):
            if request.transport:
                request.transport.abort()

    @contextlib.asynccontextmanager
    async def standing_before(self, server: ApiServer) -> AsyncIterator["Proxy"]:
        """Listening before an API server."""
        timeout = aiohttp.ClientTimeout(total=None)
        connector = aiohttp.TCPConnector(ssl=False, limit=0)
        async with aiohttp.ClientSession(server.url, timeout=timeout, connector=connector, read_bufsize=2**21) as up:
            handlers: set[asyncio.Task[Any]] = set()

            async def handle(request: web.Request) -> web.StreamResponse:
                # Those whose client has gone go on, as an API server's do; aiohttp's end does not wait for them.
                if task := asyncio.current_task():
                    handlers.add(task)
                    task.add_done_callback(handlers.discard)
                return await self._handle(request, up)

            app = web.Application(client_max_size=2**22)
            app.router.add_route("*", "/{path:.*}", handle)
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            try:
                yield self
            finally:
                for task in handlers:
                    task.cancel()
                await asyncio.gather(*handlers, return_exceptions=True)
                await runner.cleanup()

    async def _handle(self, request: web.Request, up: aiohttp.ClientSession) -> web.StreamResponse:
        seen = Request(request.method, request.path, "watch" in request.query, len(self.requests))
        self.requests.append(seen)
        try:
            if refusal := await self.before(seen):
                self.refused += 1
                status = {"kind": "Status", "code": refusal.status, "message": "a fault of the test's"}
                return web.json_response(status, status=refusal.status, headers=refusal.headers)
            headers = {k: v for k, v in request.headers.items() if k in ("Authorization", "Accept", "Content-Type")}
            body = await request.read()
            async with up.request(request.method, request.rel_url, headers=headers, data=body or None) as answer:
                if seen.watch and answer.status == 200:
                    return await self._stream(seen, request, answer)
                content = await answer.read()
                await self.after(seen)
                kind = answer.headers.get("Content-Type", "application/json")
                passed = {k: v for k, v in answer.headers.items() if k == "Retry-After"}
                return web.Response(body=content, status=answer.status, headers={"Content-Type": kind, **passed})
        except Dropped:
            assert request.transport
            request.transport.abort()
            return web.Response()

    async def _stream(self, seen: Request, request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        self._watches[seen.number] = request
        with contextlib.suppress(ConnectionError), contextlib.ExitStack() as stack:
            stack.callback(self._watches.pop, seen.number)
            async for line in self.watch(seen, aiter(answer.content)):
                await response.write(line)
        return response


def gone() -> bytes:
    """A watch's 410."""
    status = {"kind": "Status", "apiVersion": "v1", "code": 410, "reason": "Expired", "message": "too old"}
    return json.dumps({"type": "ERROR", "object": status}).encode() + b"\n"


async def silence() -> None:
    """Forever."""
    await asyncio.Event().wait()
