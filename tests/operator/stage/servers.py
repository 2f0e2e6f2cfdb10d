"""Plays Deployment controller and kubelet for servers, a pool's `POST /adapters`, and a gateway."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

from dreambooth_api.adapters import AdapterPhase, AdapterRequest, AdapterState
from dreambooth_api.reasons import Reason
from dreambooth_api.routes import BOUNDS, GatewayReport, Load, Routes, Traffic
from dreambooth_operator.app import Operator
from dreambooth_operator.routes_web import routes_app
from tests.operator.stage.api import Api, ApiError

ADDRESS = "127.0.0.1"


class Replicas:
    """Gives every Deployment of a namespace the pods that it wants, ready at once."""

    def __init__(self, api: Api, namespace: str) -> None:
        self._api, self._namespace = api, namespace

    @classmethod
    @contextlib.asynccontextmanager
    async def at_work(cls, api: Api, namespace: str) -> AsyncIterator[None]:
        """Until the block ends."""
        task = asyncio.create_task(cls(api, namespace)._run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        async for kind, found in self._api.events("deployments"):
            if found["metadata"]["namespace"] != self._namespace:
                continue
            with contextlib.suppress(ApiError):
                await self._follow(found, 0 if kind == "DELETED" else found["spec"]["replicas"])

    async def _follow(self, found: dict[str, Any], count: int) -> None:
        metadata, template = found["metadata"], found["spec"]["template"]
        if (found.get("status") or {}).get("observedGeneration") == metadata["generation"] and count:
            return
        wanted = {f"{metadata['name']}-{metadata['generation']}-{i}" for i in range(count)}
        for name in sorted(wanted):
            await self._start(name, template)
        for pod in await self._api.list("pods", self._namespace):
            name = pod["metadata"]["name"]
            if name.rsplit("-", 2)[0] == metadata["name"] and name not in wanted:
                await self._api.call("DELETE", self._api.path("pods", self._namespace, name))
        counts = dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), count)
        path = self._api.path("deployments", self._namespace, metadata["name"], "status")
        await self._api.patch(path, {"status": {"observedGeneration": metadata["generation"], **counts}})

    async def _start(self, name: str, template: dict[str, Any]) -> None:
        metadata = {"name": name, "labels": template["metadata"]["labels"],
                    "annotations": template["metadata"]["annotations"]}  # fmt: skip
        containers = [{"name": c["name"], "image": c["image"]} for c in template["spec"]["containers"]]
        body = {"metadata": metadata, "spec": {"containers": containers}}
        await self._api.create(self._api.path("pods", self._namespace), body)
        status = {
            "phase": "Running", "podIP": ADDRESS, "podIPs": [{"ip": ADDRESS}],
            "conditions": [{"type": "Ready", "status": "True"}],
        }  # fmt: skip
        await self._api.patch(self._api.path("pods", self._namespace, name, "status"), {"status": status})


class Library:
    """A pool's replica: has any artifact at hand when it is asked a second time, save those in `bad`."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.bad: set[str] = set()

    async def _handle(self, request: web.Request) -> web.Response:
        asked = AdapterRequest.model_validate(await request.json())
        again = asked.digest in self.asked
        self.asked.append(asked.digest)
        state = AdapterState(digest=asked.digest, phase=AdapterPhase.READY if again else AdapterPhase.FETCHING)
        if asked.digest in self.bad:
            state = AdapterState(
                digest=asked.digest, phase=AdapterPhase.FAILED, reason=Reason.ARTIFACT_INVALID, message="digest differs"
            )
        return web.Response(text=json.dumps(state.to_dict()))

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[int]:
        """Its port."""
        app = web.Application()
        app.router.add_post("/adapters", self._handle)
        async with TestServer(app) as server:
            assert server.port
            yield server.port


class Gateway:
    """Reports what it is told to, and has the routes that it was given."""

    def __init__(self, name: str = "g") -> None:
        self.name, self.draining = name, False
        self.routes = Routes(revision="", backends={}, routes=[])
        self.loads: dict[str, Load] = {}
        self.traffic: dict[str, dict[str, Traffic]] = {}

    def serve(self, subject: str, digest: str, requests: int, errors: int = 0) -> None:
        """Requests that an artifact had, in all."""
        durations = [requests] + [0] * len(BOUNDS)
        self.traffic.setdefault(subject, {})[digest] = Traffic(requests=requests, errors=errors, durations=durations)

    def weights(self, name: str) -> dict[str, int]:
        """A subject's artifacts that have requests."""
        found = [route for route in self.routes.routes if route.name == name]
        return {target.digest: target.weight for route in found for target in route.targets if target.weight}

    @contextlib.asynccontextmanager
    async def reporting_to(self, api: Api, operator: Operator, token: Path) -> AsyncIterator[None]:
        """Until the block ends, over real HTTP."""
        app = routes_app(operator.table, token, operator.heard, operator.health.leading)
        async with TestServer(app) as server:
            task = asyncio.create_task(self._run(api, str(server.make_url("/routes")), token.read_text()))
            try:
                yield
                assert not task.done(), task.exception()
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def _run(self, api: Api, url: str, token: str) -> None:
        while True:
            report = GatewayReport(
                gateway=self.name,
                revision=self.routes.revision,
                draining=self.draining,
                loads=self.loads,
                traffic=self.traffic,
            )
            headers = {"Authorization": f"Bearer {token}"}
            data = report.model_dump_json(by_alias=True)
            async with api.session.post(url, data=data, headers=headers) as answer:
                if answer.status == 200:
                    self.routes = Routes.model_validate_json(await answer.read())
            await asyncio.sleep(0.05)


async def until(what: Callable[[], Any], seconds: float = 60.0) -> Any:
    """The first true answer of `what`, which may be a coroutine's. Raises TimeoutError with the last one."""
    found = None
    try:
        async with asyncio.timeout(seconds):
            while True:
                found = what()
                found = await found if asyncio.iscoroutine(found) else found
                if found:
                    return found
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise TimeoutError(f"after {seconds} s it is still {found!r}") from None
