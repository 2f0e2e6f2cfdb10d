"""Jobs in a queue, before a real API server; in the place of Kueue stands somebody who patches Jobs as Kueue does."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from dreambooth_api import names
from tests.operator.stage import world
from tests.operator.stage.api import Api
from tests.operator.stage.driver import Driver

pytestmark = pytest.mark.cluster
QUEUE, FLAVOR = "queue", {"pool": "gpu"}


async def until(what: Callable[[], Awaitable[Any]], seconds: float = 30.0) -> Any:
    """The first true answer."""
    deadline = time.monotonic() + seconds
    while not (found := await what()):
        assert time.monotonic() < deadline, f"still {found!r}"
        await asyncio.sleep(0.1)
    return found


async def admit(api: Api, job: str) -> None:
    """Resume a Job on the nodes of a flavor, as Kueue does once there is quota."""
    template = {"spec": {"nodeSelector": FLAVOR}, "metadata": {"labels": {"kueue.x-k8s.io/podset": "main"}}}
    await until(lambda: api.get("jobs", QUEUE, job))
    await api.patch(api.path("jobs", QUEUE, job), {"spec": {"suspend": False, "template": template}})


async def preempt(api: Api, job: str) -> None:
    """Suspend a Job and take the flavor's nodes back, as Kueue does for a job of a higher priority."""
    await api.patch(api.path("jobs", QUEUE, job), {"spec": {"suspend": True}})


async def test_a_queued_job_is_kueues_to_start_and_to_stop(server):
    async with Api.of(server) as api:
        await api.namespace(QUEUE)

        async def reason() -> tuple[str, str]:
            status = (await api.get("dreamboothjobs", QUEUE, "one") or {}).get("status") or {}
            told = {c["type"]: c["reason"] for c in status.get("conditions", [])}
            return status.get("phase", ""), told.get("Failed", "")

        async def is_now(*expected: str) -> bool:
            return await reason() == expected

        async with world.operating(server.url, QUEUE):
            job = world.job("one")
            job["metadata"]["labels"] = {names.LABEL_QUEUE: "team"}
            await api.create(api.path("dreamboothjobs", QUEUE), job)
            await until(lambda: is_now("Suspended", "Queued"))
            made = await until(lambda: api.get("jobs", QUEUE, "one-prepare"))
            assert made["spec"]["suspend"] is True
            assert made["metadata"]["labels"][names.LABEL_QUEUE] == "team"
            await admit(api, "one-prepare")
            await until(lambda: is_now("Preparing", "Running"))
            await preempt(api, "one-prepare")
            await until(lambda: is_now("Suspended", "Queued"))
            # Nobody but the queue resumes it.
            await asyncio.sleep(2)
            assert (await api.get("jobs", QUEUE, "one-prepare"))["spec"]["suspend"] is True
        async with Driver.at_work(api) as driver, world.operating(server.url, QUEUE):
            await admit(api, "one-prepare")
            await admit(api, "one-train")
            await world.finished(api, QUEUE, "one")
            train = await api.get("jobs", QUEUE, "one-train")
            assert train["spec"]["template"]["spec"]["nodeSelector"] == FLAVOR
            assert driver.failures == []
            told = [e["reason"] for e in await api.list("events", QUEUE)]
            assert "Queued" in told
