"""Gateways as tests and benchmarks need them: in this process beside an operator, and as processes of their own."""

import asyncio
import contextlib
import json
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import uvicorn
from gateway_fakes import TOKEN, FakeOperator, FakeReplica
from prometheus_client import generate_latest

from dreambooth_api.routes import Route
from dreambooth_server.gateway.app import create_app
from dreambooth_server.gateway.gateway import Gateway
from dreambooth_server.gateway.settings import Settings

T = TypeVar("T")


@dataclass
class Stage:
    """One operator, one gateway, and replicas as a test wants them."""

    operator: FakeOperator
    folder: Path
    gateway: Gateway = field(init=False)
    url: str = ""
    replicas: list[FakeReplica] = field(default_factory=list)

    async def replica(self, pod: str) -> FakeReplica:
        """One more."""
        self.replicas.append(await FakeReplica(pod).start())
        return self.replicas[-1]

    async def tell(self, routes: list[Route], backends: dict[str, list[FakeReplica]], gateways: int = 1) -> None:
        """Have the gateway know this, and wait until it does."""
        self.operator.tell(routes, backends, gateways)
        async with asyncio.timeout(10):
            while self.gateway.table.revision != self.operator.routes.revision:
                await asyncio.sleep(0.01)

    def metrics(self) -> str:
        """What Prometheus would be told."""
        return generate_latest(self.gateway.metrics.registry).decode()

    async def told(self, name: str = "demo/rex") -> dict[str, Any]:
        """What the gateway reports of a subject from now on."""
        seen = len(self.operator.reports)
        async with asyncio.timeout(10):
            while len(self.operator.reports) <= seen + 1:
                await asyncio.sleep(0.01)
        report = self.operator.reports[-1]
        return {"load": report["loads"].get(name), "traffic": report["traffic"].get(name, {})}


def settings(operator: str, folder: Path, **changes: Any) -> Settings:
    """A gateway's settings that suit a test."""
    token = folder / "token"
    token.write_text(f"{TOKEN}\n")
    return Settings(operator=operator, token_file=token, host="127.0.0.1", **{"hold_seconds": 10.0, **changes})


@contextlib.asynccontextmanager
async def serving(app: Any) -> AsyncIterator[str]:
    """The URL of `app` on a real socket, in this loop."""
    listening = socket.socket(proto=socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=1))
    task = asyncio.create_task(server.serve([listening]))
    while not server.started:
        await asyncio.sleep(0.005)
    yield "http://{}:{}".format(*listening.getsockname())
    server.should_exit = True
    await task


@contextlib.asynccontextmanager
async def staged(folder: Path, **changes: Any) -> AsyncIterator[Stage]:
    """A gateway at work beside its operator; what a test started is stopped."""
    operator = await FakeOperator().start()
    stage = Stage(operator, folder)
    stage.gateway = Gateway(settings(operator.url, folder, **changes))
    try:
        async with serving(create_app(stage.gateway)) as stage.url:
            yield stage
    finally:
        await operator.stop()
        for replica in stage.replicas:
            await replica.stop()


class GatewayProcess:
    """A gateway's process."""

    def __init__(self, operator: FakeOperator, folder: Path) -> None:
        with socket.socket() as one, socket.socket() as other:
            for found in (one, other):
                found.bind(("127.0.0.1", 0))
            port, metrics = (found.getsockname()[1] for found in (one, other))
        self.url, self.metrics_url = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{metrics}/metrics"
        token = folder / "token"
        token.write_text(TOKEN)
        self._command = [sys.executable, "-m", "dreambooth_server.gateway", "--operator", operator.url]
        self._command += ["--token-file", str(token), "--host", "127.0.0.1", "--port", str(port)]
        self._command += ["--metrics-port", str(metrics), "--drain-seconds", "0.5"]

    async def start(self) -> None:
        """Until it is ready."""
        pipe = asyncio.subprocess.PIPE
        self.process = await asyncio.create_subprocess_exec(*self._command, stdout=pipe)
        self._audited = asyncio.create_task(self.process.communicate())
        async with asyncio.timeout(60), aiohttp.ClientSession(self.url) as client:
            while True:
                with contextlib.suppress(aiohttp.ClientError):
                    async with client.get("/readyz") as answer:
                        if answer.status == 200:
                            return
                await asyncio.sleep(0.05)

    async def stop(self) -> list[dict]:
        """Told to end as a pod is; its audit log."""
        self.process.send_signal(signal.SIGTERM)
        out, _ = await self._audited
        assert self.process.returncode == 0
        return [json.loads(line) for line in out.splitlines()]


class Behind:
    """A stage on a loop and a thread of its own, for tests that have none: Chromium's, and fuzzing."""

    def __init__(self, folder: Path) -> None:
        self._loop, self._stop = asyncio.new_event_loop(), asyncio.Event()
        self._ready: Future[Stage] = Future()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._life(folder),), daemon=True)
        self._thread.start()
        self.stage = self._ready.result(30)

    async def _life(self, folder: Path) -> None:
        async with staged(folder) as stage:
            self._ready.set_result(stage)
            await self._stop.wait()

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """What `work` gives on that loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def end(self) -> None:
        """Stop it all."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)
