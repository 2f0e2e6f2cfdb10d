"""Replicas and an operator that do as a test says, over real sockets."""

import asyncio
import base64
import contextlib
import functools
import hashlib
import io
import json
from collections import Counter
from typing import Any

from aiohttp import web
from PIL import Image

from dreambooth_api.names import HEADER_DIGEST
from dreambooth_api.routes import KeyCheck, Replica, Route, Routes, Target
from dreambooth_api.serving import ServingMode

TOKEN = "the-gateways-token"
REX = "model/demo/rex"
PATH = "/demo/rex/v1/images/generations"
BODY = {"prompt": "a photo of rex", "seed": 1}


def digest(number: int) -> str:
    """An artifact's digest."""
    return f"sha256:{number:012x}".ljust(71, "0")


def target(backend: str = REX, number: int = 1, weight: int = 100) -> Target:
    """An artifact of a subject."""
    return Target(digest=digest(number), uri=f"s3://models/{number}", weight=weight, backend=backend)


def route(
    name: str = "rex",
    *targets: Target,
    shared: bool = False,
    access: KeyCheck | None = None,
    target_in_flight: int = 4,
    reason: str = "",
) -> Route:
    """A subject of the namespace `demo`."""
    mode = ServingMode.SHARED if shared else ServingMode.DEDICATED
    return Route(
        namespace="demo", name=name, mode=mode, targets=list(targets), access=access,
        target_in_flight=target_in_flight, max_replicas=5, reason=reason,
    )  # fmt: skip


class FakeReplica:
    """Answers with its own name. A test says how long it takes and what goes wrong; it keeps what it was asked."""

    def __init__(self, pod: str) -> None:
        self.pod, self.address = pod, ""
        self.seconds = 0.0
        self.faults: list[str] = []
        """What the next requests meet: `full`, `loading`, `reset`, `error`, `away` (the store), `cut` (a stream)."""
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.active = self.most = self.cancelled = self.listed = 0
        self._runner: web.AppRunner | None = None

    async def start(self) -> "FakeReplica":
        app = web.Application()
        app.router.add_post("/v1/images/generations", self._draw)
        app.router.add_get("/v1/models", self._list)
        app.router.add_post("/adapters", self._adapter)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.address = "{}:{}".format(*self._runner.addresses[0][:2])
        return self

    async def stop(self) -> None:
        """Gone, with all that it works on."""
        if self._runner:
            await self._runner.cleanup()

    def listing(self) -> Replica:
        """As the operator tells of it."""
        return Replica(pod=self.pod, address=self.address)

    async def _draw(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        self.active += 1
        self.most = max(self.most, self.active)
        try:
            fault = self.faults.pop(0) if self.faults else ""
            if fault in _REFUSALS:
                return _refusal(*_REFUSALS[fault])
            self.asked.append(body)
            if body.get("stream"):
                return await self._stream(request, fault)
            await asyncio.sleep(self.seconds)
            if fault == "reset":
                assert request.transport is not None
                request.transport.abort()
            return web.json_response(self._drawn(body))
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.active -= 1

    async def _stream(self, request: web.Request, fault: str) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        for step in (1, 2, 3):
            data = json.dumps({"type": "image_generation.progress", "step": step, "steps": 3})
            await answer.write(f"event: image_generation.progress\ndata: {data}\n\n".encode())
            await asyncio.sleep(self.seconds)
            if fault == "cut":
                assert request.transport is not None
                request.transport.abort()
        body = json.dumps(self._drawn(await request.json()))
        await answer.write(f"event: image_generation.completed\ndata: {body}\n\n".encode())
        return answer

    def _drawn(self, body: dict[str, Any]) -> dict[str, Any]:
        picture = {"b64_json": _png(self.pod), "revised_prompt": body["prompt"], "seed": body.get("seed") or 0}
        return {
            "created": 1,
            "data": [picture],
            "model": self.pod,
            "size": "32x32",
            "steps": 3,
            "guidance_scale": 4.0,
            "warnings": [],
        }

    async def _list(self, request: web.Request) -> web.Response:
        self.listed += 1
        cards = [_card("rex", request.headers[HEADER_DIGEST]), _card("rex", digest(99)), _card("base", digest(0))]
        return web.json_response({"object": "list", "data": cards})

    async def _adapter(self, request: web.Request) -> web.Response:
        body = await request.json()
        return web.json_response({"digest": body["digest"], "phase": "Ready"})


_REFUSALS = {
    "full": (429, "queue_full"),
    "loading": (503, "loading"),
    "error": (500, "drawing_failed"),
    "away": (503, "store_unavailable"),
}


@functools.cache
def _png(pod: str) -> str:
    """A picture of a colour of its own, base64."""
    out = io.BytesIO()
    Image.new("RGB", (32, 32), tuple(hashlib.sha256(pod.encode()).digest()[:3])).save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


def _refusal(status: int, code: str) -> web.Response:
    error = {"message": code, "type": "server_error", "param": None, "code": code}
    return web.json_response({"error": error}, status=status, headers={"Retry-After": "1"})


def _card(name: str, digest: str) -> dict[str, Any]:
    card = {
        "identifier": "sks", "class_name": "dog", "digest": digest, "base": "file:///base", "method": "LoRA",
        "resolution": 32, "size_multiple": 8, "steps": 8, "guidance_scale": 4.0, "prompt_tokens": 14, "scores": {},
        "examples": ["a photo of rex"],
    }  # fmt: skip
    return {"id": name, "object": "model", "created": 1, "owned_by": "demo", "dreambooth": card}


class FakeOperator:
    """Tells gateways what a test says, as the real one does: at once when it changes."""

    def __init__(self) -> None:
        self.routes = Routes(revision="0", backends={}, routes=[])
        self.reports: list[dict[str, Any]] = []
        self.tokens: Counter[str | None] = Counter()
        self.leads, self.url = True, ""
        self._changed = asyncio.Event()
        self._runner: web.AppRunner | None = None

    async def start(self, port: int = 0) -> "FakeOperator":
        app = web.Application()
        app.router.add_post("/routes", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port).start()
        self.url = "http://{}:{}".format(*self._runner.addresses[0][:2])
        return self

    async def stop(self) -> None:
        """Away."""
        if self._runner:
            await self._runner.cleanup()

    def tell(self, routes: list[Route], backends: dict[str, list[FakeReplica]], gateways: int = 1) -> None:
        """Have every gateway know this."""
        self.routes = Routes(
            revision=str(int(self.routes.revision) + 1),
            backends={key: [replica.listing() for replica in replicas] for key, replicas in backends.items()},
            routes=routes,
            gateways=gateways,
        )
        self._changed.set()
        self._changed = asyncio.Event()

    async def _answer(self, request: web.Request) -> web.Response:
        self.tokens[request.headers.get("Authorization")] += 1
        report = await request.json()
        if not self.leads:
            return web.Response(status=503)
        self.reports.append(report)
        if report["revision"] == self.routes.revision:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), 0.3)
        if report["revision"] == self.routes.revision:
            return web.Response(status=204)
        return web.json_response(self.routes.to_dict())
