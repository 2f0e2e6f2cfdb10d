"""The operator's ports, over real HTTP, and what is on them."""

import asyncio

import aiohttp
from aiohttp import web as aiohttp_web
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client import CollectorRegistry

from dreambooth_api import names
from dreambooth_operator import progress, web
from dreambooth_operator.health import Health
from dreambooth_operator.metrics import Census
from dreambooth_operator.targets import targets


def labelled(make, component, index=0, **labels):
    pod = make.pod(index=index)
    pod["metadata"]["labels"] = {names.LABEL_COMPONENT: component, **labels}
    return pod


def test_rank_0_and_servers_are_scraped(make):
    pods = [
        labelled(make, "train", **{names.LABEL_JOB: "robot"}),
        labelled(make, "train", index=1, **{names.LABEL_JOB: "robot"}),
        labelled(make, "prepare", **{names.LABEL_JOB: "robot"}),
        labelled(make, "server", **{names.LABEL_MODEL: "robot"}),
    ]
    found = [(entry["targets"], entry["labels"]) for entry in targets(pods)]
    where = {"namespace": "team", "pod": "robot-train-0-x"}
    assert found == [
        (["10.0.0.1:9400"], {**where, "component": "train", "dreambooth_job": "robot"}),
        (["10.0.0.1:8080"], {**where, "component": "server", "model": "robot"}),
    ]


def test_what_does_not_run_is_not_scraped(make):
    pod = labelled(make, "server")
    pod["status"]["containerStatuses"][0]["state"] = {"waiting": {}}
    assert targets([pod]) == []


async def test_metrics_and_targets(make):
    registry = CollectorRegistry()
    registry.register(Census(lambda: {"Training": 1, "": 1, "Dancing": 1}, dict, lambda: {"Idle": 2}))
    app = web.metrics_app(registry, lambda: [labelled(make, "server")])
    async with TestClient(TestServer(app)) as client:
        text = await (await client.get("/metrics")).text()
        assert 'dreambooth_jobs{phase="Training"} 1.0' in text
        assert 'dreambooth_jobs{phase="Pending"} 2.0' in text
        assert 'dreambooth_models{phase="Ready"} 0.0' in text
        assert 'dreambooth_pools{phase="Idle"} 2.0' in text
        assert (await (await client.get("/targets")).json())[0]["targets"] == ["10.0.0.1:8080"]


async def test_health_is_the_age_of_the_work():
    hanging = 0.0
    health = Health(oldest=lambda: hanging, longest=lambda: hanging)
    async with TestClient(TestServer(web.health_app(health))) as client:
        assert (await client.get("/healthz")).status == 200
        hanging = 1000.0
        answer = await client.get("/healthz")
        assert answer.status == 503
        facts = await answer.json()
        assert facts["oldestWork"] == 1000.0
        sleeping = asyncio.create_task(asyncio.sleep(60))
        assert (await (await client.get("/healthz")).json())["tasks"] == facts["tasks"] + 1
        sleeping.cancel()
        hanging = 0.0
        health.ticked -= 1000
        assert (await client.get("/healthz")).status == 503


async def ask(monkeypatch, body, status=200):
    """Ask a real server that answers `body`."""

    async def answer(_):
        return aiohttp_web.Response(text=body, status=status)

    app = aiohttp_web.Application()
    app.router.add_get("/progress", answer)
    async with TestServer(app) as server, aiohttp.ClientSession() as session:
        monkeypatch.setattr(names, "TRAINER_PORT", server.port)
        return await progress.ask(session, "127.0.0.1")


async def test_progress_is_read(monkeypatch):
    report = await ask(monkeypatch, '{"phase": "Training", "progress": {"step": 3, "steps": 9}}')
    assert (report.phase, report.progress.step) == ("Training", 3)


async def test_what_is_no_progress_is_none(monkeypatch):
    assert await ask(monkeypatch, "not JSON") is None
    assert await ask(monkeypatch, '{"phase": "Dancing"}') is None
    assert await ask(monkeypatch, '{"phase": "Training"}', status=503) is None
    assert await ask(monkeypatch, "x" * 200_000) is None


async def test_a_trainer_that_is_not_there_is_none():
    async with aiohttp.ClientSession() as session:
        assert await progress.ask(session, "127.0.0.1") is None
