"""Requests for pictures through a gateway: held, relayed, retried, counted. Every hop is a real socket."""

import asyncio
import time
from pathlib import Path

import aiohttp
import pytest
from gateway_fakes import BODY, PATH, REX, digest, route, target
from gateway_kit import Stage, staged

POOL = "pool/demo/default"


async def ask(client: aiohttp.ClientSession, path: str = PATH, **body: object) -> tuple[int, dict]:
    async with client.post(path, json={**BODY, **body}) as answer:
        return answer.status, await answer.json()


async def test_a_request_reaches_the_replica_with_what_a_pool_needs_to_know(
    stage: Stage, client: aiohttp.ClientSession
) -> None:
    replica = await stage.replica("rex-1")
    await stage.tell([route("rex", target())], {REX: [replica]})
    forged = {"dreambooth-digest": digest(7), "dreambooth-artifact": "s3://others", "traceparent": "00-ab-cd-01"}
    async with client.post(PATH, json={**BODY, "model": "rex"}, headers=forged) as answer:
        assert (answer.status, (await answer.json())["model"]) == (200, "rex-1")
        assert answer.headers["dreambooth-digest"] == digest(1)
    headers = replica.headers[0]
    assert headers["dreambooth-model"] == "rex"
    assert headers["dreambooth-artifact"] == "s3://models/1"
    assert headers["dreambooth-digest"] == digest(1)
    assert headers["traceparent"] == "00-ab-cd-01"
    assert replica.asked[0] == {**BODY, "model": "rex"}


@pytest.mark.parametrize("model", [None, "rex", "demo/rex", "base", f"rex@{1:012x}"])
async def test_ways_to_name_the_subject(stage: Stage, client: aiohttp.ClientSession, model: str | None) -> None:
    replica = await stage.replica("rex-1")
    await stage.tell([route("rex", target())], {REX: [replica]})
    assert (await ask(client, model=model))[0] == 200
    if model and model.startswith("demo/"):
        assert (await ask(client, "/v1/images/generations", model=model))[0] == 200
    assert {body["model"] for body in replica.asked} == {"base" if model == "base" else "rex"}


async def test_a_burst_at_a_subject_asleep_is_held_until_its_first_replica(
    stage: Stage, client: aiohttp.ClientSession
) -> None:
    await stage.tell([route("rex", target())], {REX: []})
    began = time.monotonic()
    asking = [asyncio.create_task(ask(client)) for _ in range(200)]
    async with asyncio.timeout(30):
        while not any(report["loads"]["demo/rex"]["waiting"] for report in stage.operator.reports if report["loads"]):
            await asyncio.sleep(0.005)
    await asyncio.sleep(max(0.0, 1 - (time.monotonic() - began)))
    replica = await stage.replica("rex-1")
    replica.seconds = 0.01
    await stage.tell([route("rex", target())], {REX: [replica]})
    answers = await asyncio.gather(*asking)
    assert [status for status, _ in answers] == [200] * 200
    assert replica.most == 8
    told = await stage.told()
    assert (told["load"]["inFlight"], told["load"]["waiting"]) == (0, 0)
    assert (told["traffic"][digest(1)]["requests"], told["traffic"][digest(1)]["errors"]) == (200, 0)
    assert sum(told["traffic"][digest(1)]["durations"]) == 200


async def test_more_than_the_queue_holds_is_429_and_too_long_is_503(tmp_path: Path) -> None:
    async with staged(tmp_path, queue=3, hold_seconds=0.3) as stage, aiohttp.ClientSession(stage.url) as client:
        await stage.tell([route("rex", target())], {REX: []})
        answers = await asyncio.gather(*(ask(client) for _ in range(5)))
        codes = sorted((status, body["error"]["code"]) for status, body in answers)
        assert codes == [(429, "queue_full")] * 2 + [(503, "no_replica")] * 3
        slow = await stage.replica("rex-1")
        slow.seconds = 1
        await stage.tell([route("rex", target(), target_in_flight=1)], {REX: [slow]})
        async with client.post(PATH, json=BODY) as answer:
            assert answer.status == 200
        answers = await asyncio.gather(*(ask(client) for _ in range(4)))
        codes = sorted((status, body.get("error", {}).get("code")) for status, body in answers)
        assert codes == [(200, None)] * 2 + [(429, "overloaded")] * 2


@pytest.mark.parametrize("fault", ["reset", "loading", "full", "away"])
async def test_what_one_replica_cannot_do_another_does(stage: Stage, client: aiohttp.ClientSession, fault: str) -> None:
    replicas = [await stage.replica("rex-1"), await stage.replica("rex-2")]
    for replica in replicas:
        replica.faults = [fault]
    await stage.tell([route("rex", target())], {REX: replicas})
    assert [status for status, _ in await asyncio.gather(ask(client), ask(client))] == [200, 200]


async def test_a_replica_that_ends_while_it_draws_costs_no_request(stage: Stage, client: aiohttp.ClientSession) -> None:
    first, second = await stage.replica("rex-1"), await stage.replica("rex-2")
    first.seconds = 30
    await stage.tell([route("rex", target())], {REX: [first]})
    asking = [asyncio.create_task(ask(client)) for _ in range(4)]
    while first.active < 4:
        await asyncio.sleep(0.01)
    # Before the operator hears of it.
    await stage.tell([route("rex", target())], {REX: [first, second]})
    await first.stop()
    assert {(status, body["model"]) for status, body in await asyncio.gather(*asking)} == {(200, "rex-2")}
    traffic = (await stage.told())["traffic"][digest(1)]
    assert (traffic["requests"], traffic["errors"]) == (8, 4)


async def test_a_request_that_kills_replicas_is_not_sent_to_all_of_them(
    stage: Stage, client: aiohttp.ClientSession
) -> None:
    replicas = [await stage.replica(f"rex-{n}") for n in range(5)]
    for replica in replicas:
        replica.faults = ["reset"] * 5
    await stage.tell([route("rex", target())], {REX: replicas})
    status, body = await ask(client)
    assert (status, body["error"]["code"]) == (502, "replica_lost")
    assert sum(len(replica.asked) for replica in replicas) == 3


async def test_a_failed_drawing_is_the_requests_own(stage: Stage, client: aiohttp.ClientSession) -> None:
    replica = await stage.replica("rex-1")
    replica.faults = ["error"]
    await stage.tell([route("rex", target())], {REX: [replica, await stage.replica("rex-2")]})
    statuses = [(await ask(client))[0] for _ in range(4)]
    assert sorted(statuses) == [200, 200, 200, 500]
    assert (await stage.told())["traffic"][digest(1)]["errors"] == 1


async def test_a_canary_gets_its_share_and_its_failures_cost_nobody(
    stage: Stage, client: aiohttp.ClientSession
) -> None:
    stable, canary = await stage.replica("stable"), await stage.replica("canary")
    targets = target(weight=90), target("canary/demo/rex", 2, 10)
    await stage.tell([route("rex", *targets)], {REX: [stable], "canary/demo/rex": [canary]})
    models = [(await ask(client))[1]["model"] for _ in range(50)]
    assert (models.count("stable"), models.count("canary")) == (45, 5)
    canary.faults = ["error", "reset", "error"] * 3
    assert {(await ask(client))[0] for _ in range(20)} == {200}
    traffic = (await stage.told())["traffic"]
    assert traffic[digest(2)]["errors"] >= 2
    assert traffic[digest(1)]["errors"] == 0
    # One without replicas is not waited for while the other has some.
    await stage.tell([route("rex", *targets)], {REX: [stable], "canary/demo/rex": []})
    assert {(await ask(client))[0] for _ in range(20)} == {200}
    # But whoever names it waits for it, and nobody else's share counts.
    asking = asyncio.create_task(ask(client, model=f"rex@{2:012x}"))
    await asyncio.sleep(0.05)
    canary.faults = []
    await stage.tell([route("rex", *targets)], {REX: [stable], "canary/demo/rex": [canary]})
    assert (await asking)[1]["model"] == "canary"


async def test_a_pools_subject_stays_where_it_is_warm_and_spills(stage: Stage, client: aiohttp.ClientSession) -> None:
    replicas = [await stage.replica(f"pool-{n}") for n in range(3)]
    subjects = [route(f"rex{n}", target(POOL, n), shared=True, target_in_flight=2) for n in range(1, 13)]
    await stage.tell(subjects, {POOL: replicas})
    for _ in range(3):
        for n in range(1, 13):
            assert (await ask(client, f"/demo/rex{n}/v1/images/generations"))[0] == 200
    homes = [{h["dreambooth-model"] for h in replica.headers} for replica in replicas]
    assert sum(map(len, homes)) == 12
    for replica in replicas:
        replica.seconds = 0.2
    await asyncio.gather(*(ask(client, "/demo/rex1/v1/images/generations") for _ in range(6)))
    assert [replica.most for replica in replicas] == [2, 2, 2]
    metrics = stage.metrics()
    assert 'dreambooth_gateway_pool_in_flight_requests{namespace="demo",pool="default"} 0.0' in metrics


async def test_subjects_that_wait_for_one_pool_take_turns(stage: Stage, client: aiohttp.ClientSession) -> None:
    replica = await stage.replica("pool-1")
    subjects = [route(name, target(POOL, n), shared=True, target_in_flight=1) for n, name in enumerate(("many", "few"))]
    await stage.tell(subjects, {POOL: [replica]})
    replica.seconds = 0.05
    many = [asyncio.create_task(ask(client, "/demo/many/v1/images/generations")) for _ in range(20)]
    while replica.active < 2:
        await asyncio.sleep(0.005)
    await ask(client, "/demo/few/v1/images/generations")
    # In the order in which they came, all of the others would have been first.
    assert sum(task.done() for task in many) < 10
    await asyncio.gather(*many)


async def test_work_ends_when_the_client_goes_away(stage: Stage, client: aiohttp.ClientSession) -> None:
    replica = await stage.replica("rex-1")
    replica.seconds = 30
    await stage.tell([route("rex", target(), target_in_flight=1)], {REX: [replica]})
    asking = [asyncio.create_task(ask(client)) for _ in range(4)]
    while replica.active < 2:
        await asyncio.sleep(0.01)
    for task in asking:
        task.cancel()
    async with asyncio.timeout(5):
        while replica.cancelled < 2:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    assert len(replica.asked) == 2
    told = await stage.told()
    assert (told["load"]["inFlight"], told["load"]["waiting"], told["traffic"]) == (0, 0, {})


async def test_progress_comes_as_it_happens(stage: Stage, client: aiohttp.ClientSession) -> None:
    replica = await stage.replica("rex-1")
    replica.seconds = 0.15
    await stage.tell([route("rex", target())], {REX: [replica]})
    began, times = time.monotonic(), []
    async with client.post(PATH, json={**BODY, "stream": True}) as answer:
        assert answer.content_type == "text/event-stream"
        async for line in answer.content:
            if line.startswith(b"event: "):
                times.append((line.split()[1], time.monotonic() - began))
    assert [name for name, _ in times] == [b"image_generation.progress"] * 3 + [b"image_generation.completed"]
    assert times[0][1] < 0.15 < times[2][1]
    assert (await stage.told())["load"]["inFlight"] == 0


async def test_a_stream_whose_replica_dies_ends_with_an_error(stage: Stage, client: aiohttp.ClientSession) -> None:
    replica = await stage.replica("rex-1")
    replica.seconds, replica.faults = 0.02, ["cut"]
    await stage.tell([route("rex", target())], {REX: [replica]})
    async with client.post(PATH, json={**BODY, "stream": True}) as answer:
        text = await answer.text()
    assert text.startswith("event: image_generation.progress")
    assert "event: error" in text
    assert '"code": "replica_lost"' in text
    assert (await stage.told())["traffic"][digest(1)]["errors"] == 1


async def test_a_stream_is_hung_up_when_the_client_goes_away(stage: Stage, client: aiohttp.ClientSession) -> None:
    replica = await stage.replica("rex-1")
    replica.seconds = 20
    await stage.tell([route("rex", target())], {REX: [replica]})
    answer = await client.post(PATH, json={**BODY, "stream": True})
    await answer.content.readline()
    answer.close()
    async with asyncio.timeout(5):
        while replica.active:
            await asyncio.sleep(0.01)
    assert (await stage.told())["load"]["inFlight"] == 0


BAD = [
    ({"prompt": " "}, 400, "prompt"),
    ({"n": 10**6}, 400, "n"),
    ({"prompt": "x" * 100_000}, 413, None),
    ({"model": "tabby"}, 404, "model"),
    ({"model": "rex@0123"}, 404, "model"),
    ({"steps": 0}, 400, "steps"),
    ({"guidence_scale": 3}, 400, "guidence_scale"),
]


@pytest.mark.parametrize(("change", "status", "param"), BAD)
async def test_bad_requests_wake_nobody(
    stage: Stage, client: aiohttp.ClientSession, change: dict, status: int, param: str | None
) -> None:
    await stage.tell([route("rex", target())], {REX: []})
    found, body = await ask(client, **change)
    assert (found, body["error"]["param"]) == (status, param)
    assert stage.gateway.tally.waiting.total() == 0


async def test_unknown_and_unready_subjects_are_told_apart(stage: Stage, client: aiohttp.ClientSession) -> None:
    await stage.tell([route("rex", reason="The artifact cannot be found: publish it again.")], {})
    assert (await ask(client, "/demo/nobody/v1/images/generations"))[1]["error"]["code"] == "model_not_found"
    assert (await ask(client, "/v1/images/generations", model="rex"))[0] == 404
    assert (await ask(client, "/v1/images/generations"))[1]["error"]["param"] == "model"
    status, body = await ask(client)
    assert (status, body["error"]["message"]) == (503, "The artifact cannot be found: publish it again.")


async def test_a_subject_that_vanishes_while_requests_wait_is_not_found(
    stage: Stage, client: aiohttp.ClientSession
) -> None:
    await stage.tell([route("rex", target())], {REX: []})
    asking = asyncio.create_task(ask(client))
    while not stage.gateway.tally.waiting.total():
        await asyncio.sleep(0.005)
    await stage.tell([], {})
    assert (await asking)[0] == 404
    metrics = stage.metrics()
    assert 'model="rex"' not in metrics.replace('code="404",model="rex"', "")
