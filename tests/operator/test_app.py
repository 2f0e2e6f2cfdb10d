"""The whole operator before a real API server, through a proxy that does what networks and busy servers do.

No nodes: `stage.driver` plays controllers, kubelet and trainer. benchmarks/faults.py runs the full matrix.
"""

import asyncio
import contextlib
import json
import signal
import time
from collections.abc import AsyncIterator

import pytest

from dreambooth_api import names
from tests.operator.stage import apiserver, faults, world
from tests.operator.stage.api import Api
from tests.operator.stage.driver import Driver
from tests.operator.stage.proxy import Proxy

pytestmark = pytest.mark.cluster


@contextlib.asynccontextmanager
async def stage(server: apiserver.ApiServer, *namespaces: str) -> AsyncIterator[tuple[Api, Driver]]:
    async with Api.of(server) as api, Driver.at_work(api) as driver:
        for namespace in namespaces:
            await api.namespace(namespace)
        yield api, driver


async def test_killed_after_any_write_it_ends_as_if_undisturbed(server):
    """One run for each write of a job's life, all side by side; the operator is stopped when the API server has carried
    the write out and nobody has heard of it yet."""
    async with stage(server) as (api, driver):
        undisturbed = await faults.undisturbed(server, api, "calm")
        runs = [faults.killed(server, api, f"kill-{n}", n) for n in range(undisturbed.writes)]
        states = await asyncio.gather(*runs)
        assert undisturbed.writes >= 15
        for number, state in enumerate(states):
            assert state == undisturbed.state, f"killed after write {number}"
        assert set(driver.started.values()) == {1}, "a Job of the same name was started twice"
        assert driver.failures == []


@pytest.mark.parametrize("fault", faults.FAULTS)
async def test_under_a_fault_it_ends_as_if_undisturbed(server, fault):
    async with stage(server) as (api, driver):
        calm = await faults.undisturbed(server, api, f"calm-{fault}")
        state = await faults.disturbed(server, api, f"fault-{fault}", faults.FAULTS[fault], calm.state)
        assert state == calm.state
        assert set(driver.started.values()) == {1}
        assert driver.failures == []


async def test_what_vanished_while_no_watch_ran_is_made_again(server):
    """The watch is cut, the Service deleted, and the watch's continuation refused with 410: only a list can tell."""
    async with (
        stage(server, "vanish") as (api, _),
        Proxy().standing_before(server) as proxy,
        world.operating(proxy.url, "vanish"),
    ):
        await api.create(api.path("dreamboothjobs", "vanish"), world.job("robot"))
        await world.finished(api, "vanish", "robot")
        before = (await api.get("services", "vanish", "robot-endpoint"))["metadata"]["uid"]
        proxy.watch = faults.expired
        proxy.cut()
        await api.call("DELETE", api.path("services", "vanish", "robot-endpoint"))
        await asyncio.sleep(0.5)
        proxy.watch = faults.whole
        async with asyncio.timeout(30):
            while (found := await api.get("services", "vanish", "robot-endpoint")) is None:
                await asyncio.sleep(0.1)
        assert found["metadata"]["uid"] != before


async def test_nothing_is_made_twice_and_nothing_read_that_was_just_written(server):
    """By the audit log of a job's whole life, to its model's endpoint."""
    async with stage(server, "once") as (api, _), world.operating(server.url, "once"):
        await api.create(api.path("dreamboothjobs", "once"), world.job("robot"))
        await world.finished(api, "once", "robot")
        await asyncio.sleep(3)
    requests = [r for r in server.requests() if r["objectRef"].get("namespace") == "once"]
    assert [r["requestURI"] for r in requests if r["responseStatus"]["code"] == 409] == []
    # How often an input or an owner is asked for is a matter of time. Of children a job's are created without a look, a
    # model's are looked for once, and applied.
    timed = ("secrets", names.JOB_PLURAL, names.MODEL_PLURAL)
    read = [r["objectRef"] for r in requests if r["verb"] == "get" and r["objectRef"]["resource"] not in timed]
    endpoint = ("services", "deployments", "horizontalpodautoscalers", "poddisruptionbudgets")
    assert [(ref["resource"], ref["name"]) for ref in read] == [(kind, "robot-endpoint") for kind in endpoint]


async def test_in_the_steady_state_nothing_is_written_or_listed(server):
    """By the API server's own audit log, with jobs and models that are done and a job that waits."""
    async with stage(server, "steady") as (api, _), world.operating(server.url, "steady"):
        for number in range(3):
            await api.create(api.path("dreamboothjobs", "steady"), world.job(f"robot-{number}"))
        await api.create(api.path("dreamboothjobs", "steady"), world.job("waits", suspend=True))
        await asyncio.gather(*(world.finished(api, "steady", f"robot-{number}") for number in range(3)))
        await asyncio.sleep(3)
        seen = len(server.audited().splitlines())
        await asyncio.sleep(12)
        verbs = [json.loads(line)["verb"] for line in server.audited().splitlines()[seen:]]
        assert [verb for verb in verbs if verb != "watch"] == []


async def test_a_restart_reads_lists_and_writes_nothing(server):
    """With a job and a model that are done, a job that trains and one that waits."""
    async with stage(server, "again") as (api, driver):
        driver.held.add(("again", "trains-train"))
        async with world.operating(server.url, "again"):
            for name in ("robot", "trains"):
                await api.create(api.path("dreamboothjobs", "again"), world.job(name))
            await api.create(api.path("dreamboothjobs", "again"), world.job("waits", suspend=True))
            await world.finished(api, "again", "robot")
            async with asyncio.timeout(30):
                while (await api.get("dreamboothjobs", "again", "trains")).get("status", {}).get("phase") != "Training":
                    await asyncio.sleep(0.1)
            await asyncio.sleep(3)
        seen = len(server.audited().splitlines())
        async with world.operating(server.url, "again"):
            await asyncio.sleep(5)
        verbs = [json.loads(line)["verb"] for line in server.audited().splitlines()[seen:]]
        assert set(verbs) == {"list", "watch"}


async def test_a_standby_takes_over_from_one_that_was_killed_and_at_once_from_one_that_ends(server, tmp_path):
    """Two processes; the first is killed with SIGKILL, later the second asked to end with SIGTERM."""
    async with stage(server, "ha") as (api, _):
        kubeconfig = server.kubeconfig()
        ports = [(apiserver.free_port(), apiserver.free_port()) for _ in range(3)]

        async def start(n: int) -> asyncio.subprocess.Process:
            health, metrics = ports[n]
            return await world.spawn(
                kubeconfig,
                tmp_path / "log",
                HOSTNAME=f"replica-{n}",
                DREAMBOOTH_NAMESPACES="ha",
                DREAMBOOTH_LEASE_NAMESPACE="ha",
                DREAMBOOTH_HEALTH_PORT=str(health),
                DREAMBOOTH_METRICS_PORT=str(metrics),
            )

        async def holder(wanted: str) -> float:
            begun = time.monotonic()
            async with asyncio.timeout(60):
                while True:
                    with contextlib.suppress(Exception):
                        path = "/apis/coordination.k8s.io/v1/namespaces/ha/leases/dreambooth-operator"
                        if (await api.call("GET", path))["spec"]["holderIdentity"].startswith(wanted):
                            return time.monotonic() - begun
                    await asyncio.sleep(0.05)

        first = await start(0)
        await holder("replica-0")
        second = await start(1)
        await world.ready(api, ports[1][0])
        first.send_signal(signal.SIGKILL)
        await first.wait()
        assert await holder("replica-1") < 20
        await api.create(api.path("dreamboothjobs", "ha"), world.job("robot"))
        await world.finished(api, "ha", "robot")
        third = await start(2)
        await world.ready(api, ports[2][0])
        second.send_signal(signal.SIGTERM)
        assert await holder("replica-2") < 5
        assert await second.wait() == 0
        third.send_signal(signal.SIGTERM)
        assert await third.wait() == 0
