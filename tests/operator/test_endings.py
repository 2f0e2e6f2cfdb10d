"""Nothing runs again and nothing is left: TTL, restarts, `kubectl apply` once more, and deletion in every phase, before
a real API server with Kubernetes' own garbage collector."""

import asyncio
import json
import time
from collections.abc import Iterable

import pytest

from dreambooth_api import names
from dreambooth_api.reasons import Phase
from dreambooth_api.result import Report
from tests.operator.stage import apiserver, trainer, world
from tests.operator.stage.api import Api
from tests.operator.stage.driver import Driver

pytestmark = pytest.mark.cluster
CHILDREN = ("jobs", "services", "pods")


@pytest.fixture(scope="module", autouse=True)
def garbage_collector(server):
    """At work during these tests."""
    with server.collecting_garbage():
        yield


async def left_of(api: Api, namespace: str, *jobs: str) -> list[str]:
    """Children of jobs."""
    found = [(plural, body["metadata"]) for plural in CHILDREN for body in await api.list(plural, namespace)]
    return [f"{plural}/{m['name']}" for plural, m in found if m.get("labels", {}).get(names.LABEL_JOB) in jobs]


async def until_gone(api: Api, namespace: str, *jobs: str, seconds: float = 60.0) -> None:
    """Wait until nothing is left of jobs."""
    deadline = time.monotonic() + seconds
    while left := await left_of(api, namespace, *jobs):
        assert time.monotonic() < deadline, left
        await asyncio.sleep(0.2)


async def kubectl_apply(server: apiserver.ApiServer, namespace: str, bodies: Iterable[dict]) -> str:
    """`kubectl apply -f -`; what it says."""
    command = [apiserver.program("kubectl"), "apply", f"--kubeconfig={server.kubeconfig(user='admin')}",
               f"--namespace={namespace}", "-f", "-"]  # fmt: skip
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate(
        json.dumps({"kind": "List", "apiVersion": "v1", "items": list(bodies)}).encode()
    )
    assert process.returncode == 0
    return said.decode()


async def test_what_is_finished_never_runs_again(server):
    """`short` has a TTL; `away` gets one that is over while no operator runs; the children of `bare` are deleted by
    hand."""
    jobs = {name: world.job(name) for name in ("short", "away", "bare")}
    jobs["short"]["spec"]["ttlSecondsAfterFinished"] = 1
    async with Api.of(server) as api, Driver.at_work(api) as driver:
        await api.namespace("ttl")
        async with world.operating(server.url, "ttl"):
            await kubectl_apply(server, "ttl", jobs.values())
            await asyncio.gather(*(world.finished(api, "ttl", name) for name in jobs))
            await until_gone(api, "ttl", "short")
        assert {"jobs/away-train", "jobs/bare-train"} <= set(await left_of(api, "ttl", "away", "bare"))
        background = {"propagationPolicy": "Background"}
        for plural, name in (("jobs", "bare-prepare"), ("jobs", "bare-train"), ("services", "bare-train")):
            await api.call("DELETE", api.path(plural, "ttl", name), background)
        await until_gone(api, "ttl", "bare")
        jobs["away"]["spec"]["ttlSecondsAfterFinished"] = 0
        assert "away configured" in await kubectl_apply(server, "ttl", jobs.values())
        ends = {name: (await api.get("dreamboothjobs", "ttl", name))["status"] for name in jobs}
        async with world.operating(server.url, "ttl"):
            await until_gone(api, "ttl", "away")
            said = await kubectl_apply(server, "ttl", jobs.values())
            assert said.count("unchanged") == len(jobs)
            # A field that may still change makes it a new generation, and yet nothing new.
            await api.patch(api.path("dreamboothjobs", "ttl", "bare"), {"spec": {"backoffLimit": 9}})
            await asyncio.sleep(2)
        assert await left_of(api, "ttl", *jobs) == []
        assert {name: (await api.get("dreamboothjobs", "ttl", name))["status"] for name in jobs} == ends
        assert {name: driver.started["ttl", f"{name}-train"] for name in jobs} == dict.fromkeys(jobs, 1)
        assert driver.failures == []
        # What was published stays.
        assert all([(await api.get("deployments", "ttl", f"{name}-endpoint")) for name in jobs])


PHASES = ("Pending", "Preparing", "Training", "Scoring", "Publishing", "Succeeded", "Failed", "Suspended")
HELD = {"Preparing": "prepare", "Training": "train", "Scoring": "train", "Publishing": "train", "Failed": "prepare",
        "Suspended": "train"}  # fmt: skip


def job_in(phase: str, name: str) -> dict:
    """A job that comes to `phase`, and stays there as long as its pods are held."""
    job = world.job(name)
    if phase == "Pending":
        job["spec"]["baseModel"]["secretRef"] = {"name": "none"}
    return job


async def bring(api: Api, driver: Driver, wanted: dict[str, str]) -> None:
    """Jobs, by name, into their phases. A training is suspended; what may not be is edited in while the input is
    checked."""
    deadline = time.monotonic() + 60
    for name, phase in wanted.items():
        await api.create(api.path("dreamboothjobs", "gone"), job_in(phase, name))
    while True:
        found = {name: (await api.get("dreamboothjobs", "gone", name) or {}).get("status") or {} for name in wanted}
        phases = {name: status.get("phase") for name, status in found.items()}
        if phases == wanted:
            return
        assert time.monotonic() < deadline, phases
        for name, phase in wanted.items():
            path = api.path("dreamboothjobs", "gone", name)
            if phase == "Suspended" and phases[name] == "Training":
                await api.patch(path, {"spec": {"suspend": True}})
            if phase == "Failed" and phases[name] == "Preparing":
                await api.patch(path, {"spec": {"topology": {"template": {"hostPID": True}}}})
                driver.held.discard(("gone", f"{name}-prepare"))
        await asyncio.sleep(0.3)


async def test_deleted_in_any_phase_a_job_leaves_nothing(server, monkeypatch):
    """One of each phase while an operator runs, and one of each after it has ended."""
    monkeypatch.setattr(names, "TRAINER_PORT", apiserver.free_port())
    says = {"Scoring": "127.0.0.72", "Publishing": "127.0.0.73"}
    with_one, without = ({f"{phase.lower()}-{mode}": phase for phase in PHASES} for mode in ("on", "off"))
    wanted = with_one | without
    async with (
        Api.of(server) as api,
        Driver.at_work(api) as driver,
        trainer.answering(names.TRAINER_PORT, {a: lambda p=p: Report(phase=Phase(p)) for p, a in says.items()}),
    ):
        await api.namespace("gone")
        driver.held |= {("gone", f"{name}-{HELD[phase]}") for name, phase in wanted.items() if phase in HELD}
        driver.addresses |= {("gone", f"{name}-train"): says[phase] for name, phase in wanted.items() if phase in says}
        async with world.operating(server.url, "gone"):
            await bring(api, driver, wanted)
            assert len(await left_of(api, "gone", *wanted)) > 60
            await delete(api, with_one)
        await api.create(api.path("dreamboothjobs", "gone"), world.job("never-seen"))
        await delete(api, [*without, "never-seen"])
        async with world.operating(server.url, "gone"):
            await asyncio.sleep(1.5)
            assert await left_of(api, "gone", *wanted) == []
        assert driver.failures == []
        assert max(driver.started.values()) == 1


async def delete(api: Api, jobs: Iterable[str]) -> None:
    """Jobs, as kubectl deletes them; and all that is theirs is gone soon."""
    for name in jobs:
        await api.call("DELETE", api.path("dreamboothjobs", "gone", name), {"propagationPolicy": "Background"})
        assert await api.get("dreamboothjobs", "gone", name) is None
    await until_gone(api, "gone", *jobs)
    # The model that a job published is the job's no more.
    assert await api.get("personalizedmodels", "gone", next(n for n in jobs if n.startswith("succeeded")))
