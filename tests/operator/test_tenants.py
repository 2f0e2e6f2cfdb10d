"""Namespaces of different teams, with the chart's own roles before a real API server that enforces them.

The operator has the chart's ServiceAccount, and `alice` may create jobs and models in her namespace and nothing else.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from dreambooth_api import names
from tests.chart.helm import manifests
from tests.chart.variants import NAMESPACE
from tests.operator.stage import tenants, world
from tests.operator.stage.api import KINDS, Api, ApiError
from tests.operator.stage.apiserver import ACCOUNT, ApiServer
from tests.operator.stage.driver import Driver

pytestmark = pytest.mark.cluster
RBAC = "/apis/rbac.authorization.k8s.io/v1"
ROLES = {"Role": "roles", "RoleBinding": "rolebindings", "ClusterRole": "clusterroles",
         "ClusterRoleBinding": "clusterrolebindings"}  # fmt: skip
MINE, THEIRS = "tenant-mine", "tenant-theirs"
CONFINED = ("--set", "operator.namespaces={red,blue}")


@contextlib.asynccontextmanager
async def installed(server: ApiServer, *flags: str) -> AsyncIterator[Api]:
    """The chart's roles, until the block ends."""
    roles = [m for m in manifests("--set", "crds.install=false", *flags) if m["kind"] in ROLES]
    async with Api.of(server) as api:
        for place in {role["metadata"].get("namespace") or NAMESPACE for role in roles}:
            if await refusal(api.call("GET", f"/api/v1/namespaces/{place}")) == 404:
                await api.namespace(place)
        made = []
        for role in roles:
            place = role["metadata"].get("namespace")
            path = "/".join(filter(None, [RBAC, place and f"namespaces/{place}", ROLES[role["kind"]]]))
            await api.create(path, role)
            made.append(f"{path}/{role['metadata']['name']}")
        try:
            yield api
        finally:
            for path in made:
                await api.call("DELETE", path)


async def refusal(answer: Any) -> int:
    """The status with which the API server refuses; 0 when it does not."""
    try:
        await answer
    except ApiError as e:
        return e.status
    return 0


async def test_confined_to_namespaces_it_works_there_and_sees_nothing_elsewhere(server):
    mine = ("red", "blue")
    async with installed(server, *CONFINED) as api, Driver.at_work(api):
        await api.namespace("green")
        for namespace in (*mine, "green"):
            await api.create(api.path("dreamboothjobs", namespace), world.job("robot"))
        first = len(server.requests())
        lease = {"lease_namespace": NAMESPACE, "lease_name": "dreambooth-operator", "identity": "replica-0"}
        async with world.operating(server.url, *mine, user=ACCOUNT, **lease):
            await asyncio.gather(*(world.finished(api, namespace, "robot") for namespace in mine))
        requests = server.requests(first)
        assert {r["objectRef"].get("namespace") for r in requests} == {*mine, NAMESPACE}
        assert [r for r in requests if r["responseStatus"]["code"] == 403] == []
        untouched = await api.get("dreamboothjobs", "green", "robot")
        assert "status" not in untouched
    async with installed(server, *CONFINED), Api.of(server, ACCOUNT) as operator:
        secret = f"/secrets/{names.STORE_SECRET}"
        assert await refusal(operator.call("GET", f"/api/v1/namespaces/red{secret}")) == 0
        assert await refusal(operator.call("GET", f"/api/v1/namespaces/green{secret}")) == 403
        assert await refusal(operator.call("GET", "/api/v1/namespaces/red/secrets")) == 403
        for plural in KINDS:
            for path in (operator.path(plural), operator.path(plural, "green"), operator.path(plural, "green", "x")):
                assert await refusal(operator.call("GET", path)) == 403, path
        for path in (operator.path("jobs", "green"), operator.path("dreamboothjobs", "red")):
            assert await refusal(operator.create(path, {"metadata": {"name": "x"}})) == 403


async def bind_alice(api: Api) -> None:
    """The chart's `edit` and `view` of jobs and models, in her namespace alone."""
    for role in ("dreambooth-edit", "dreambooth-view"):
        subject = {"kind": "User", "name": "alice", "apiGroup": "rbac.authorization.k8s.io"}
        reference = {"kind": "ClusterRole", "name": role, "apiGroup": "rbac.authorization.k8s.io"}
        body = {"metadata": {"name": role}, "roleRef": reference, "subjects": [subject]}
        await api.create(f"{RBAC}/namespaces/{MINE}/rolebindings", body)


async def theirs(api: Api) -> dict[str, Any]:
    """Every object of the other namespace, by kind and name, with its version."""
    bodies = [(plural, body) for plural in KINDS if plural != "events" for body in await api.list(plural, THEIRS)]
    return {f"{plural}/{b['metadata']['name']}": b["metadata"]["resourceVersion"] for plural, b in bodies}


async def answered(api: Api, plural: str, name: str, seconds: float = 30.0) -> dict[str, Any]:
    """An object's status, once the operator has said something about it."""
    async with asyncio.timeout(seconds):
        while not (found := (await api.get(plural, MINE, name) or {}).get("status") or {}).get("conditions"):
            await asyncio.sleep(0.1)
    return found


async def test_who_may_create_jobs_reaches_nothing_of_another_namespace(server):
    """Every field of both kinds that names something, with names that climb and names that only the others have."""
    async with installed(server) as api, Api.of(server, "alice") as alice:
        for namespace in (MINE, THEIRS):
            await api.namespace(namespace)
        await bind_alice(api)
        await tenants.furnish(api, THEIRS)
        async with world.operating(server.url, user=ACCOUNT):
            while not await api.get("deployments", THEIRS, f"{tenants.MODEL}-endpoint"):
                await asyncio.sleep(0.1)
            await asyncio.sleep(1)
            before, first = await theirs(api), len(server.requests())
            tried = await asyncio.gather(*(attempt(api, alice, case) for case in tenants.attempts(THEIRS)))
            assert {outcome for outcome, _ in tried} == {"refused at the door", "InvalidSpec", "not there", "harmless"}
            await asyncio.sleep(1)
            assert await theirs(api) == before
            asked = [r["requestURI"] for r in server.requests(first) if r["objectRef"].get("namespace") == THEIRS]
            assert asked == []
        said = json.dumps([status for _, status in tried] + await api.list("events", MINE))
        assert [word for word in tenants.DATA if word in said] == []
        for plural in ("jobs", "deployments", "services", "horizontalpodautoscalers", "pods"):
            for child in await api.list(plural, MINE):
                assert THEIRS not in json.dumps(child), (plural, child["metadata"]["name"])
        assert await refusal(alice.call("GET", f"/api/v1/namespaces/{THEIRS}/secrets/token")) == 403
        assert await refusal(alice.create(alice.path("dreamboothjobs", THEIRS), world.job("x"))) == 403


async def attempt(api: Api, alice: Api, case: tenants.Attempt) -> tuple[str, dict[str, Any]]:
    """What became of one attempt, and the status that tells it."""
    try:
        await alice.create(alice.path(case.plural, MINE), case.body)
    except ApiError as e:
        assert case.expected == "refused at the door", (case.name, str(e))  # noqa: PT017
        assert e.status in (400, 422)  # noqa: PT017
        assert case.field in str(e)  # noqa: PT017
        return case.expected, {}
    status = await answered(api, case.plural, case.body["metadata"]["name"])
    told = {c["type"]: (c["reason"], c["message"]) for c in status["conditions"]}
    reason, message = told.get("Failed") or told["Ready"]
    match case.expected:
        case "InvalidSpec":
            assert reason == "InvalidSpec", (case.name, reason, message)
            assert case.field in message, (case.name, message)
        case "not there":
            assert (reason, message) == (case.field, case.message), case.name
        case _:
            assert case.expected == "harmless", (case.name, reason, message)
    return case.expected, status
