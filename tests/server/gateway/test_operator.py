"""The gateway and its operator: who leads is found, who is away is done without, and nothing counted is lost."""

import asyncio
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
from gateway_fakes import BODY, PATH, REX, TOKEN, FakeOperator, route, target
from gateway_kit import Stage, serving, settings, staged

from dreambooth_server.gateway.app import create_app
from dreambooth_server.gateway.gateway import Gateway


async def test_it_is_ready_once_it_has_routes_and_says_who_it_is(stage: Stage, client: aiohttp.ClientSession) -> None:
    await stage.tell([route("rex", target())], {REX: []})
    assert (await client.get("/readyz")).status == 200
    assert set(stage.operator.tokens) == {f"Bearer {TOKEN}"}
    assert {report["gateway"] for report in stage.operator.reports} == {stage.gateway.settings.identity}
    idle = (await stage.told())["load"]["idleSeconds"]
    assert 0 < idle < 60


async def test_before_the_first_routes_it_is_not_ready(tmp_path: Path) -> None:
    gateway = Gateway(settings("http://127.0.0.1:1", tmp_path))
    async with serving(create_app(gateway)) as url, aiohttp.ClientSession(url) as client:
        assert (await client.get("/healthz")).status == 200
        assert (await client.get("/readyz")).status == 503
        async with client.post(PATH, json=BODY) as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == (503, "starting")
            assert answer.headers["Retry-After"] == "5"


async def test_it_goes_on_with_what_it_knows_while_the_operator_is_away(
    stage: Stage, client: aiohttp.ClientSession
) -> None:
    replica = await stage.replica("rex-1")
    await stage.tell([route("rex", target())], {REX: [replica]})
    port = urlsplit(stage.operator.url).port
    await stage.operator.stop()
    await asyncio.sleep(0.2)
    async with client.post(PATH, json=BODY) as answer:
        assert answer.status == 200
    assert (await client.get("/readyz")).status == 200
    again = await FakeOperator().start(port or 0)
    again.tell([], {})
    again.tell([route("tabby", target())], {REX: [replica]})
    stage.operator = again
    async with asyncio.timeout(10):
        while ("demo", "tabby") not in stage.gateway.table.routes:
            await asyncio.sleep(0.02)
    assert (await stage.told("demo/tabby"))["load"]["inFlight"] == 0


async def test_of_several_operators_the_one_that_leads_is_found(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        follower, leader = stage.operator, await FakeOperator().start()
        follower.leads = False
        leader.tell([route("rex", target())], {REX: []})
        operators = [follower.url, leader.url]
        gateway = Gateway(settings(follower.url, tmp_path))
        async with gateway.open():
            polling = gateway.operator

            async def addresses() -> list[str]:
                return sorted(operators, key=lambda url: url != polling.leader)

            polling.addresses = addresses  # type: ignore[method-assign]
            async with asyncio.timeout(10):
                while not gateway.table.known:
                    await asyncio.sleep(0.02)
            assert polling.leader == leader.url
            # The lease moves.
            leader.leads, follower.leads = False, True
            follower.tell([], {})
            follower.tell([], {})
            async with asyncio.timeout(10):
                while gateway.table.routes:
                    await asyncio.sleep(0.02)
            assert polling.leader == follower.url
        await leader.stop()
        assert gateway.settings.identity in {report["gateway"] for report in follower.reports}


async def test_a_gateway_that_drains_says_so(stage: Stage, client: aiohttp.ClientSession) -> None:
    await stage.tell([route("rex", target())], {REX: []})
    assert not stage.operator.reports[-1]["draining"]
    stage.gateway.drain()
    await stage.told()
    assert stage.operator.reports[-1]["draining"]


async def test_the_last_report_has_what_was_counted_last(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        replica = await stage.replica("rex-1")
        await stage.tell([route("rex", target())], {REX: [replica]})
        async with aiohttp.ClientSession(stage.url) as client, client.post(PATH, json=BODY) as answer:
            assert answer.status == 200
        reports = stage.operator.reports
    assert reports[-1]["traffic"]["demo/rex"][target().digest]["requests"] == 1
    assert reports[-1]["draining"]
