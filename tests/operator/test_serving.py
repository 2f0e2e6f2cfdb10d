"""Pools, shared subjects, canaries and sleep before a real API server, with a gateway that reports over real HTTP.

No nodes: `stage.servers` plays controllers, kubelet, a pool's replica and the gateway. Time is shortened.
"""

import asyncio
import base64
import contextlib
import hashlib
import json

import pytest
from prometheus_client import REGISTRY

from dreambooth_api import names
from dreambooth_api.routes import Load
from dreambooth_operator import keys, routes_web, traffic
from tests.operator.serving_life import A, B, C, artifact
from tests.operator.stage import world
from tests.operator.stage.api import Api
from tests.operator.stage.servers import Gateway, Library, Replicas, until

pytestmark = pytest.mark.cluster
SECRET = b"open-sesame"
WAITING, NOBODY = Load(in_flight=0, waiting=1, idle_seconds=0), Load(in_flight=0, waiting=0, idle_seconds=900)


class Stage:
    """A namespace with an operator, a gateway and replicas."""

    def __init__(self, server, api, namespace, token):
        self.server, self.api, self.namespace, self.token = server, api, namespace, token
        self.gateway, self.library = Gateway(), Library()

    @contextlib.asynccontextmanager
    async def operating(self):
        async with (
            world.operating(self.server.url, self.namespace, gateway_url="http://gateway") as operator,
            self.gateway.reporting_to(self.api, operator, self.token),
        ):
            yield operator

    async def make(self, kind, name, **spec):
        plural = {names.MODEL_KIND: "personalizedmodels", names.POOL_KIND: "servingpools"}[kind]
        body = {"apiVersion": names.API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}
        await self.api.create(self.api.path(plural, self.namespace), body)

    async def patch(self, name, **spec):
        await self.api.patch(self.api.path("personalizedmodels", self.namespace, name), {"spec": spec})

    async def reason(self, name, kind="Ready", plural="personalizedmodels"):
        found = await self.api.get(plural, self.namespace, name)
        conditions = (found.get("status") or {}).get("conditions", [])
        return next((f"{c['status']} {c['reason']}" for c in conditions if c["type"] == kind), None)

    async def comes_to(self, name, reason, kind="Ready", plural="personalizedmodels"):
        seen = []

        async def look():
            seen.append(await self.reason(name, kind, plural))
            return seen[-1] == reason

        try:
            await until(look)
        except TimeoutError:
            raise TimeoutError(f"{name} is {seen[-1]}, not {reason}") from None

    async def replicas(self, deployment):
        found = await self.api.get("deployments", self.namespace, deployment)
        return found and found["spec"]["replicas"]


@contextlib.asynccontextmanager
async def stage(server, monkeypatch, tmp_path, namespace):
    token = tmp_path / "token"
    token.write_text("secret")
    monkeypatch.setattr(traffic, "REPORT_SECONDS", 1.0)
    monkeypatch.setattr(routes_web, "HOLD_SECONDS", 0.2)
    async with Api.of(server) as api:
        await api.namespace(namespace)
        found = Stage(server, api, namespace, token)
        async with found.library.listening() as port, Replicas.at_work(api, namespace):
            monkeypatch.setattr(names, "SERVER_PORT", port)
            yield found


def rolled_back(reason):
    return REGISTRY.get_sample_value("dreambooth_canaries_rolled_back_total", {"reason": reason})


async def at_rest(server, seconds=4.0):
    """What the operator asks of the API server while nothing happens, but for watches."""
    await asyncio.sleep(3)
    seen = len(server.requests())
    await asyncio.sleep(seconds)
    return [request["verb"] for request in server.requests(seen) if request["verb"] != "watch"]


async def test_subjects_of_a_pool(server, monkeypatch, tmp_path):
    async with stage(server, monkeypatch, tmp_path, "pooled") as it:
        it.library.bad = {C}
        async with it.operating():
            shared = {"mode": "Shared", "pool": "default"}
            await it.make(names.MODEL_KIND, "robot", artifact=artifact(A), serving=shared)
            await it.comes_to("robot", "False PoolNotFound")
            await it.make(names.POOL_KIND, "default", baseModel={"uri": "s3://models/base"})
            await it.comes_to("robot", "True Available")
            await it.make(names.MODEL_KIND, "bad", artifact=artifact(C), serving=shared)
            await it.comes_to("bad", "False ArtifactInvalid")
            await until(lambda: it.gateway.weights("robot") == {A: 100})
            (replica,) = it.gateway.routes.backends["pool/pooled/default"]
            assert replica.pod.startswith("default-pool-")

            async def counted():
                pool = await it.api.get("servingpools", "pooled", "default")
                return pool["status"]["subjects"] == 2

            await until(counted)
            assert [d["metadata"]["name"] for d in await it.api.list("deployments", "pooled")] == ["default-pool"]
            assert await at_rest(server) == []
            assert it.library.asked.count(C) == 1, "what is bad is not asked for again"
            rollout = {"strategy": "Canary", "steps": [30], "stepSeconds": 6}
            await it.patch("robot", artifact=artifact(B), rollout=rollout)
            await until(lambda: it.gateway.weights("robot") == {A: 70, B: 30})
        # An operator that begins anew goes on with it, and judges by what gateways have counted.
        asked = it.library.asked.count(B)
        it.gateway.serve("pooled/robot", B, requests=20, errors=5)
        async with it.operating():
            before = rolled_back("errors")
            await it.comes_to("robot", "False AnalysisFailed", "Progressing")
            assert rolled_back("errors") == before + 1
            await until(lambda: it.gateway.weights("robot") == {A: 100})
            it.gateway.serve("pooled/robot", B, requests=40, errors=5)
            await it.patch("robot", rollout={"stepSeconds": 2})
            await until(lambda: it.gateway.weights("robot") == {B: 100})
            await it.comes_to("robot", "True Available")
            assert it.library.asked.count(B) == asked, "what was verified is not asked for again"


async def test_a_model_of_its_own_sleeps_wakes_and_is_rolled_out(server, monkeypatch, tmp_path):
    async with stage(server, monkeypatch, tmp_path, "sleeping") as it, it.operating():
        serving = {"minReplicas": 0, "maxReplicas": 1, "idleSeconds": 2}
        it.gateway.loads = {"sleeping/robot": NOBODY}
        await it.make(names.MODEL_KIND, "robot", artifact=artifact(A), serving=serving)
        await it.comes_to("robot", "True ScaledToZero")
        assert await it.replicas("robot-endpoint") == 0
        assert it.gateway.weights("robot") == {A: 100}
        assert await at_rest(server) == []
        it.gateway.loads = {"sleeping/robot": WAITING}
        begun = asyncio.get_running_loop().time()
        await until(lambda: it.gateway.routes.backends.get("model/sleeping/robot"))
        assert asyncio.get_running_loop().time() - begun < 5
        await it.comes_to("robot", "True Available")
        await it.patch("robot", artifact=artifact(B), rollout={"strategy": "Canary", "steps": [50], "stepSeconds": 2})
        await until(lambda: it.gateway.weights("robot") == {A: 50, B: 50})
        assert it.gateway.routes.backends["canary/sleeping/robot"]
        await until(lambda: it.gateway.weights("robot") == {B: 100})

        async def canary_gone():
            return await it.api.get("deployments", "sleeping", "robot-canary") is None

        await until(canary_gone)
        it.gateway.loads = {"sleeping/robot": NOBODY}
        await it.comes_to("robot", "True ScaledToZero")


async def test_every_gateway_is_told_how_many_there_are(server, monkeypatch, tmp_path):
    async with stage(server, monkeypatch, tmp_path, "several") as it, it.operating() as operator:
        other = Gateway("other")
        async with other.reporting_to(it.api, operator, it.token):
            await until(lambda: it.gateway.routes.gateways == other.routes.gateways == 2)
            other.draining = True
            await until(lambda: it.gateway.routes.gateways == 1)
            other.draining = False
            await until(lambda: it.gateway.routes.gateways == 2)
        # It was killed: it says nothing more.
        await until(lambda: it.gateway.routes.gateways == 1)


async def test_only_keys_open_a_model_and_without_their_secret_nothing_does(server, monkeypatch, tmp_path):
    monkeypatch.setattr(keys, "FRESH", 0.5)
    monkeypatch.setattr(keys, "LOOK", 0.2)
    async with stage(server, monkeypatch, tmp_path, "locked") as it, it.operating():
        await it.make(names.MODEL_KIND, "robot", artifact=artifact(A), serving={"access": {"secret": "keys"}})
        await it.comes_to("robot", "False SecretNotFound")

        def known():
            return [route.access and route.access.keys for route in it.gateway.routes.routes]

        await until(lambda: known() == [{}])
        data = {"anna": base64.b64encode(SECRET).decode()}
        await it.api.create(it.api.path("secrets", "locked"), {"metadata": {"name": "keys"}, "data": data})
        await until(lambda: known() == [{"anna": hashlib.sha256(SECRET).hexdigest()}])
        await it.comes_to("robot", "True Available")
        assert SECRET.decode() not in json.dumps([request.get("requestURI") for request in server.requests()])
        await it.api.call("DELETE", it.api.path("secrets", "locked", "keys"))
        await until(lambda: known() == [{}])
        await it.comes_to("robot", "False SecretNotFound")
