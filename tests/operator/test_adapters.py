"""Asking a pool's replica over real HTTP."""

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from dreambooth_api import names
from dreambooth_api.adapters import AdapterPhase, AdapterRequest
from dreambooth_operator import adapters
from tests.operator.serving_life import A, B

REQUEST = AdapterRequest(name="robot", uri="s3://models/a", digest=A)


async def ask(monkeypatch, answer, status=200):
    """Ask a real server that answers so; returns what it was asked, and what came of it."""
    asked = []

    async def handle(request):
        asked.append(AdapterRequest.model_validate(await request.json()))
        return web.Response(text=answer, status=status)

    app = web.Application()
    app.router.add_post("/adapters", handle)
    async with TestServer(app) as server, aiohttp.ClientSession() as session:
        monkeypatch.setattr(names, "SERVER_PORT", server.port)
        return asked, await adapters.ask(session, "127.0.0.1", REQUEST)


async def test_what_the_replica_says(monkeypatch):
    answer = f'{{"digest": "{A}", "phase": "Failed", "reason": "ArtifactInvalid", "message": "a pickle"}}'
    asked, state = await ask(monkeypatch, answer)
    assert asked == [REQUEST]
    assert (state.phase, state.reason, state.message) == (AdapterPhase.FAILED, "ArtifactInvalid", "a pickle")


@pytest.mark.parametrize(
    ("answer", "status"),
    [("nonsense", 200), (f'{{"digest": "{B}", "phase": "Ready"}}', 200), ("", 503), ('{"phase": "Dancing"}', 200),
     ("x" * 100_000, 200)],
)  # fmt: skip
async def test_what_is_of_no_use_settles_nothing(monkeypatch, answer, status):
    _, state = await ask(monkeypatch, answer, status)
    assert state.phase == AdapterPhase.FETCHING


async def test_a_replica_that_is_not_there_settles_nothing(monkeypatch):
    monkeypatch.setattr(names, "SERVER_PORT", 9)
    async with aiohttp.ClientSession() as session:
        assert (await adapters.ask(session, "127.0.0.1", REQUEST)).phase == AdapterPhase.FETCHING


def test_subjects_are_spread_over_the_replicas_that_are_ready(make):
    pods = []
    for number in range(4):
        pod = make.pod(f"pod-{number}")
        pod["status"] |= {"podIP": f"10.0.0.{number}",
                          "conditions": [{"type": "Ready", "status": "True" if number else "False"}]}  # fmt: skip
        pods.append(pod)
    found = [adapters.replica(pods, f"subject-{number}") for number in range(50)]
    assert set(found) == {"10.0.0.1", "10.0.0.2", "10.0.0.3"}
    assert found == [adapters.replica(pods[::-1], f"subject-{number}") for number in range(50)]
    assert adapters.replica(pods[:1], "robot") is None
