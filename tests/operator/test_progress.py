"""What people see of a job that trains, before a real API server: how far it is, how often that is written, and the
story that its events tell."""

import asyncio
import itertools
import time
from datetime import UTC, datetime

import pytest
from aiohttp import web

from dreambooth_api import names
from dreambooth_api.job import Progress
from dreambooth_api.reasons import Phase
from dreambooth_api.result import Report
from dreambooth_operator import clock, decide_job, job_results, lookups, nodes, reconcile
from tests.operator.stage import apiserver, trainer, world
from tests.operator.stage.api import Api
from tests.operator.stage.driver import Driver

pytestmark = pytest.mark.cluster
NAMESPACE, ADDRESS = "pace", "127.0.0.71"
TRAIN = (NAMESPACE, "robot-train")
# The phase changes after so many seconds of training, to be told with the third progress.
TRAINING = 12.0


async def test_progress_is_fresh_and_written_once_in_ten_seconds_and_events_tell_the_story(server, monkeypatch):
    monkeypatch.setattr(names, "TRAINER_PORT", apiserver.free_port())
    begun, phase = time.monotonic(), [Phase.TRAINING]

    def says() -> Report:
        """Another step every second."""
        step = int(time.monotonic() - begun)
        return Report(phase=phase[0], progress=Progress(step=step, steps=100, percent=step, loss="0.1"))

    async with (
        Api.of(server) as api,
        Driver.at_work(api) as driver,
        trainer.answering(names.TRAINER_PORT, {ADDRESS: says}),
        world.operating(server.url, NAMESPACE),
    ):
        await api.namespace(NAMESPACE)
        driver.held.add(TRAIN)
        driver.addresses[TRAIN] = ADDRESS
        await api.create(api.path("dreamboothjobs", NAMESPACE), world.job("robot"))
        waiting = await kubectl_wait(server, "--for=condition=Complete", "dreamboothjob/robot")
        poking = asyncio.create_task(poke(api))
        ages, seen = await watched(api, phase)
        poking.cancel()
        assert waiting.returncode is None
        driver.held.clear()
        await world.finished(api, NAMESPACE, "robot")
        assert await asyncio.wait_for(waiting.wait(), 10) == 0

        # Whole seconds on both sides, and the time of a write on a busy machine.
        assert max(ages) < 12.5
        assert len(set(ages)) > 3
        path = f"/namespaces/{NAMESPACE}/dreamboothjobs/robot/status"
        told = [r for r in server.requests() if r["requestURI"].split("?")[0].endswith(path)]
        moments = [clock.parse(r["requestReceivedTimestamp"]).timestamp() for r in told]
        # What was written from the first progress on until the pods were done: three times, ten seconds apart.
        first = max(moment for moment in moments if moment < seen[0])
        paced = [moment for moment in moments if first <= moment <= seen[1]]
        assert len(paced) == 3
        assert min(late - early for early, late in itertools.pairwise(paced)) >= 10

        # As kubectl does; the API server lists by name.
        events = sorted(await api.list("events", NAMESPACE), key=lambda e: e["lastTimestamp"])
        story = [(e["type"], e["reason"]) for e in events if e["involvedObject"]["name"] == "robot"
                 and e["involvedObject"]["kind"] == names.JOB_KIND]  # fmt: skip
        phases = ("Preparing", "Training", "Scoring", "Publishing", "Succeeded")
        assert story == [("Normal", phase) for phase in phases]


async def test_a_rank_0_that_falls_silent_is_told_until_it_answers_again(server, monkeypatch):
    monkeypatch.setattr(names, "TRAINER_PORT", apiserver.free_port())
    for module in (lookups, reconcile, decide_job):
        monkeypatch.setattr(module, "POLL", 1.0)
    monkeypatch.setattr(job_results, "SILENCE", 2.0)
    train, mute = ("silence", "robot-train"), [False]

    def says() -> Report:
        if mute[0]:
            raise web.HTTPServiceUnavailable
        return Report(phase=Phase.TRAINING, progress=Progress(step=7, steps=100, percent=7, loss="0.1"))

    async with (
        Api.of(server) as api,
        Driver.at_work(api) as driver,
        trainer.answering(names.TRAINER_PORT, {ADDRESS: says}),
        world.operating(server.url, "silence"),
    ):
        await api.namespace("silence")
        driver.held.add(train)
        driver.addresses[train] = ADDRESS
        await api.create(api.path("dreamboothjobs", "silence"), world.job("robot"))
        for silent, reason in ((False, "Running"), (True, "Unresponsive"), (False, "Running")):
            mute[0] = silent
            async with asyncio.timeout(30):
                while await step_and_reason(api, "silence") != (7, reason):
                    await asyncio.sleep(0.2)
        driver.held.clear()
        await world.finished(api, "silence", "robot")


async def test_a_node_whose_kubelet_stops_is_told_until_it_is_heard_of_again(server, monkeypatch):
    """The pods run, and nobody says anything of them: as a training that goes on where only the kubelet has died."""
    monkeypatch.setattr(lookups, "POLL", 1.0)
    monkeypatch.setattr(decide_job, "POLL", 1.0)
    train = ("kubelet", "robot-train")
    async with (
        Api.of(server) as api,
        Driver.at_work(api) as driver,
        world.operating(server.url, "kubelet", watch_nodes=True),
    ):
        await api.namespace("kubelet")
        driver.held.add(train)
        driver.hosts[train] = "node-7"
        kubelet = asyncio.create_task(beating(api, "node-7"))
        await api.create(api.path("dreamboothjobs", "kubelet"), world.job("robot"))
        await until_reason(api, "kubelet", "Running", phase="Training")
        kubelet.cancel()
        await until_reason(api, "kubelet", "NodeLost")
        found = next(c for c in (await status(api, "kubelet"))["conditions"] if c["type"] == "Failed")
        assert "node-7" in found["message"]
        kubelet = asyncio.create_task(beating(api, "node-7"))
        await until_reason(api, "kubelet", "Running")
        # A kubelet that is heard of stays so.
        async with asyncio.timeout(30):
            for _ in range(12):
                await asyncio.sleep(0.5)
                assert (await step_and_reason(api, "kubelet"))[1] == "Running"
        driver.held.clear()
        await world.finished(api, "kubelet", "robot")
        kubelet.cancel()


async def beating(api: Api, node: str) -> None:
    """A kubelet's heartbeats: of its Lease of eight seconds, each two."""
    if not await api.get("leases", nodes.NAMESPACE, node):
        spec = {"holderIdentity": node, "leaseDurationSeconds": 8}
        await api.create(api.path("leases", nodes.NAMESPACE), {"metadata": {"name": node}, "spec": spec})
    while True:
        renewed = {"spec": {"renewTime": datetime.now(UTC).isoformat(timespec="microseconds")}}
        await api.patch(api.path("leases", nodes.NAMESPACE, node), renewed)
        await asyncio.sleep(2)


async def until_reason(api: Api, namespace: str, reason: str, phase: str = "Training") -> None:
    """Wait until the job is in a phase and its condition Failed has the reason."""
    async with asyncio.timeout(40):
        while True:
            found = (await status(api, namespace)).get("phase"), (await step_and_reason(api, namespace))[1]
            if found == (phase, reason):
                return
            await asyncio.sleep(0.2)


async def step_and_reason(api: Api, namespace: str) -> tuple[int | None, str | None]:
    """How far the job is, and the reason of its condition Failed."""
    found = await status(api, namespace)
    reasons = {condition["type"]: condition["reason"] for condition in found.get("conditions", ())}
    return found.get("progress", {}).get("step"), reasons.get("Failed")


async def status(api: Api, namespace: str = NAMESPACE) -> dict:
    return (await api.get("dreamboothjobs", namespace, "robot") or {}).get("status") or {}


async def kubectl_wait(server, *arguments: str) -> asyncio.subprocess.Process:
    """`kubectl wait`, under way."""
    flags = [f"--kubeconfig={server.kubeconfig(user='admin')}", f"--namespace={NAMESPACE}", "--timeout=90s"]
    command = [apiserver.program("kubectl"), "wait", *arguments, *flags]
    return await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)


async def poke(api: Api) -> None:
    """Events of the training's Job in between: they neither put the next progress off nor bring it forward."""
    for number in itertools.count():
        await asyncio.sleep(7)
        if await api.get("jobs", *TRAIN):
            await api.patch(api.path("jobs", *TRAIN), {"metadata": {"annotations": {"poked": str(number)}}})


async def watched(api: Api, phase: list[Phase]) -> tuple[list[float], tuple[float, float]]:
    """From the first progress until the phase that follows is told: ages of the status' progress, looked at four times
    a second, seconds; and when both were seen."""
    ages: list[float] = []
    first = 0.0
    async with asyncio.timeout(TRAINING + 40):
        while (found := await status(api)).get("phase") != "Scoring":
            if heard := clock.parse(found.get("progress", {}).get("time")):
                first = first or time.time()
                ages.append((datetime.now(UTC) - heard).total_seconds())
                if time.time() - first > TRAINING:
                    phase[0] = Phase.SCORING
            await asyncio.sleep(0.25)
    return ages, (first, time.time())
