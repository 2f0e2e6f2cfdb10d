"""The tests' own hands on an API server: plain requests, no client library between."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp

from dreambooth_api import names

OWN = f"/apis/{names.API_VERSION}"
KINDS = {
    "dreamboothjobs": OWN,
    "personalizedmodels": OWN,
    "servingpools": OWN,
    "jobs": "/apis/batch/v1",
    "deployments": "/apis/apps/v1",
    "horizontalpodautoscalers": "/apis/autoscaling/v2",
    "poddisruptionbudgets": "/apis/policy/v1",
    "services": "/api/v1",
    "configmaps": "/api/v1",
    "pods": "/api/v1",
    "secrets": "/api/v1",
    "events": "/api/v1",
    "leases": "/apis/coordination.k8s.io/v1",
}


class ApiError(Exception):
    """The API server said no."""

    def __init__(self, status: int, body: dict[str, Any]) -> None:
        super().__init__(f"{status}: {body.get('message')}")
        self.status, self.body = status, body


class Api:
    """Requests with a user's token."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url, self.session = url, session

    @classmethod
    @contextlib.asynccontextmanager
    async def of(cls, server: Any, user: str = "admin") -> AsyncIterator["Api"]:
        """For an `ApiServer`."""
        connector = aiohttp.TCPConnector(ssl=False, limit=0)
        headers = {"Authorization": f"Bearer {server.token(user)}"}
        async with aiohttp.ClientSession(connector=connector, headers=headers, read_bufsize=2**21) as session:
            yield cls(server.url, session)

    async def call(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> dict[str, Any]:
        """A request. Raises ApiError."""
        data = None if body is None else json.dumps(body)
        headers = {"Content-Type": kind} if body is not None else {}
        async with self.session.request(method, self.url + path, data=data, headers=headers) as answer:
            text = await answer.text()
            if answer.status >= 400:
                raise ApiError(answer.status, json.loads(text) if text.startswith("{") else {"message": text})
            return json.loads(text)

    async def create(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """POST."""
        return await self.call("POST", path, body)

    async def patch(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Merge patch."""
        return await self.call("PATCH", path, body, "application/merge-patch+json")

    async def get(self, plural: str, namespace: str, name: str) -> dict[str, Any] | None:
        """An object, or None."""
        try:
            return await self.call("GET", self.path(plural, namespace, name))
        except ApiError as e:
            if e.status == 404:
                return None
            raise

    async def list(self, plural: str, namespace: str = "") -> list[dict[str, Any]]:
        """Every object of a kind."""
        return (await self.call("GET", self.path(plural, namespace)))["items"]

    def path(self, plural: str, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """A URL's path."""
        place = ("namespaces", namespace) if namespace else ()
        return "/".join(part for part in (KINDS[plural], *place, plural, name, subresource) if part)

    async def namespace(self, name: str) -> None:
        """A namespace with a store's Secret in it."""
        await self.create("/api/v1/namespaces", {"metadata": {"name": name}})
        await self.create(self.path("secrets", name), {"metadata": {"name": names.STORE_SECRET}})

    async def until_served(self, path: str, seconds: float = 60.0) -> None:
        """Wait until a kind is served. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            while True:
                try:
                    await self.call("GET", path)
                    return
                except ApiError:
                    await asyncio.sleep(0.1)

    async def events(self, plural: str, version: str = "0") -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """(type, object) of everything there is and of all that comes."""
        while True:
            query = f"?watch=true&resourceVersion={version}&timeoutSeconds=3600"
            timeout = aiohttp.ClientTimeout(total=None)
            async with self.session.get(self.url + self.path(plural) + query, timeout=timeout) as answer:
                async for line in answer.content:
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        raise ApiError(event["object"].get("code", 0), event["object"])
                    version = event["object"]["metadata"]["resourceVersion"]
                    yield event["type"], event["object"]
