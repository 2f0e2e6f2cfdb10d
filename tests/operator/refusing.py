"""A small API server over real HTTP: a real one (tests/operator/stage) cannot be told to refuse."""

import contextlib
import json

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes.aio import client

from dreambooth_api import names
from dreambooth_operator.caches import Caches
from dreambooth_operator.cluster import Cluster
from dreambooth_operator.fence import Fence
from dreambooth_operator.queue import WorkQueue
from dreambooth_operator.reconcile import Reconciler
from dreambooth_operator.views import Key

JOB = Key(names.JOB_KIND, "team", "robot")
MODEL = Key(names.MODEL_KIND, "team", "robot")


class ApiServer:
    """Keeps what is applied; refuses what it is told to."""

    def __init__(self):
        self.objects, self.requests, self.refusals = {}, [], {}

    def refuse(self, verb, part, status, message="no"):
        """Answer requests of `verb` whose path contains `part` with `status`."""
        self.refusals[verb, part] = (status, message)

    async def handle(self, request):
        body = json.loads(await request.text() or "null")
        self.requests.append((request.method, request.path, request, body))
        for (verb, part), (status, message) in self.refusals.items():
            if request.method == verb and part in request.path:
                return web.json_response({"kind": "Status", "message": message, "code": status}, status=status)
        if request.method == "GET" and request.path not in self.objects:
            return web.json_response({"message": "not found"}, status=404)
        if request.method == "POST" and not request.path.endswith("/events"):
            path = f"{request.path}/{body['metadata']['name']}"
            if path in self.objects:
                return web.json_response({"message": "exists"}, status=409)
            self.objects[path] = {**body, "metadata": {"uid": "u", "resourceVersion": "1", **body["metadata"]}}
            return web.json_response(self.objects[path], status=201)
        if request.method == "PATCH":
            name = request.path.removesuffix("/status")
            old = self.objects.get(name, {})
            live = {**old, **body, "metadata": {**old.get("metadata", {}), **body["metadata"]}}
            live["metadata"] = {"uid": "u", **live["metadata"], "resourceVersion": str(len(self.requests))}
            self.objects[name] = live
        return web.json_response(self.objects.get(request.path.removesuffix("/status"), body))

    def writes(self):
        """(verb, last part of the path) of everything but reads."""
        return [(verb, path.rsplit("/", 1)[-1]) for verb, path, *_ in self.requests if verb != "GET"]


@contextlib.asynccontextmanager
async def reconciling(settings, *bodies):
    """A reconciler over caches with `bodies`, and its API server with the store's Secret."""
    api = ApiServer()
    api.objects["/api/v1/namespaces/team/secrets/dreambooth-store"] = {"metadata": {"name": "dreambooth-store"}}
    for body in bodies:
        plural = names.JOB_PLURAL if body["kind"] == names.JOB_KIND else names.MODEL_PLURAL
        api.objects[f"/apis/{names.API_VERSION}/namespaces/team/{plural}/{body['metadata']['name']}"] = body
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", api.handle)
    caches = Caches()

    def keep(body):
        caches.put(body["kind"], body)

    for body in bodies:
        keep(body)
    queue, fence = WorkQueue(), Fence()
    fence.open()
    async with TestServer(app) as server, aiohttp.ClientSession() as session:
        cluster = Cluster(client.ApiClient(client.Configuration(host=str(server.make_url("")).rstrip("/"))), fence)
        try:
            yield Reconciler(cluster, caches, settings, queue, session, keep), api, caches
        finally:
            await cluster.close()


def condition(api, kind="Failed", plural="dreamboothjobs"):
    """A condition of the status that was written last."""
    written = [body for _, path, _, body in api.requests if path.endswith(f"/{plural}/robot/status")][-1]
    return next((c["status"], c["reason"], c["message"]) for c in written["status"]["conditions"] if c["type"] == kind)
