"""Who may ask, how often, and what is written down about it."""

import hashlib
import json
import logging
import time
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from gateway_fakes import BODY, PATH, REX, digest, route, target
from gateway_kit import Stage, staged

from dreambooth_api.routes import KeyCheck
from dreambooth_server.gateway.admission import Rates

KEYS = {"robot": "correct horse", "app": "battery staple"}


def keys(names: tuple[str, ...] = ("robot", "app"), per_minute: int | None = None) -> KeyCheck:
    hashes = {name: hashlib.sha256(KEYS[name].encode()).hexdigest() for name in names}
    return KeyCheck(keys=hashes, requests_per_minute=per_minute)


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def guarded(stage: Stage, per_minute: int | None = None, gateways: int = 1) -> None:
    replica = await stage.replica("rex-1")
    routes = [
        route("rex", target(), access=keys(("robot",), per_minute)),
        route("tabby", target(number=2), access=keys(("app",))),
        route("open", target(number=3)),
    ]
    await stage.tell(routes, {REX: [replica]}, gateways)


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({}, 401, "missing_api_key"),
        ({"Authorization": "Basic cm9ib3Q6eA=="}, 401, "missing_api_key"),
        (bearer("wrong"), 401, "invalid_api_key"),
        (bearer(""), 401, "missing_api_key"),
        (bearer(KEYS["app"]), 403, "key_not_allowed"),
        (bearer("ünïcode"), 401, "invalid_api_key"),
    ],
)
async def test_only_the_subjects_own_keys_open_it(
    stage: Stage, client: aiohttp.ClientSession, headers: dict[str, str], status: int, code: str
) -> None:
    await guarded(stage)
    for method, path in (("POST", PATH), ("GET", "/demo/rex/v1/models"), ("GET", "/v1/models/demo/rex")):
        body = BODY if method == "POST" else None
        async with client.request(method, path, json=body, headers=headers) as answer:
            assert answer.status == status
            error = (await answer.json())["error"]
            assert (error["code"], error["type"]) == (code, "invalid_request_error")
            assert ("WWW-Authenticate" in answer.headers) == (status == 401)
    assert not stage.replicas[0].asked


async def test_its_key_opens_it_and_lists_it(stage: Stage, client: aiohttp.ClientSession) -> None:
    await guarded(stage)
    async with client.post(PATH, json=BODY, headers=bearer(KEYS["robot"])) as answer:
        assert answer.status == 200
    assert "authorization" not in stage.replicas[0].headers[0]
    for headers, listed in (({}, ["demo/open"]), (bearer(KEYS["app"]), ["demo/tabby", "demo/open"])):
        async with client.get("/v1/models", headers=headers) as answer:
            assert [entry["id"] for entry in (await answer.json())["data"]] == listed


async def test_each_key_has_its_rate(stage: Stage, client: aiohttp.ClientSession) -> None:
    await guarded(stage, per_minute=3)
    statuses, begun = [], time.monotonic()
    for _ in range(4):
        async with client.post(PATH, json=BODY, headers=bearer(KEYS["robot"])) as answer:
            statuses.append(answer.status)
            body = await answer.json()
    assert statuses == [200, 200, 200, 429]
    # The next one of three a minute, counted from the first.
    assert 20 - (time.monotonic() - begun) <= int(answer.headers["Retry-After"]) <= 21
    assert body["error"]["code"] == "rate_limit_exceeded"
    async with client.post("/demo/open/v1/images/generations", json=BODY) as answer:
        assert answer.status == 200


async def drawn(client: aiohttp.ClientSession) -> tuple[int, str | None]:
    """How a request with the robot's key ends, and whether its connection does."""
    async with client.post(PATH, json=BODY, headers=bearer(KEYS["robot"])) as answer:
        return answer.status, answer.headers.get("Connection")


async def test_a_gateway_takes_its_share_and_sends_whoever_has_used_it_up_to_another(
    stage: Stage, client: aiohttp.ClientSession
) -> None:
    await guarded(stage, per_minute=4, gateways=2)
    assert [await drawn(client) for _ in range(3)] == [(200, None), (200, None), (429, "close")]
    # Alone again: it fills faster, and nothing is to be had elsewhere.
    await guarded(stage, per_minute=4, gateways=1)
    assert await drawn(client) == (429, None)
    assert stage.gateway.table.gateways == 1


@pytest.mark.parametrize(("per_minute", "gateways"), [(1, 2), (1, 5), (3, 2), (60, 3)])
def test_shares_add_up_to_the_rate_and_none_is_nothing(per_minute: int, gateways: int) -> None:
    """A client that asks every gateway every second for an hour: the rate, and the full buckets of the beginning."""
    now = [0.0]
    each = [Rates(lambda: now[0]) for _ in range(gateways)]
    passed = 0
    for second in range(3600):
        now[0] = float(second)
        passed += sum(rates.take("demo", "k", per_minute / gateways) == 0 for rates in each)
    begun = gateways * max(1, per_minute // gateways)
    assert per_minute * 60 - gateways <= passed - begun <= per_minute * 60
    assert all(rates.take("demo", "k", per_minute / gateways) <= 60 * gateways / per_minute for rates in each)


def test_a_share_of_less_than_one_is_not_taken_for_full_before_it_is() -> None:
    now = [0.0]
    rates = Rates(lambda: now[0])
    assert rates.take("demo", "k", 0.5) == 0
    now[0] = 61
    rates.forget_full()
    assert rates.take("demo", "k", 0.5) == pytest.approx(59)
    now[0] = 121
    rates.forget_full()
    assert rates.take("demo", "k", 0.5) == 0


def test_of_a_smaller_share_no_more_is_left_than_it_holds() -> None:
    """Another gateway came: both together have the rate, not one and a half times it."""
    rates = Rates(lambda: 0.0)
    assert rates.take("demo", "k", 60) == 0
    assert [rates.take("demo", "k", 2) == 0 for _ in range(3)] == [True, True, False]


def test_a_bucket_fills_within_a_minute_and_no_further() -> None:
    now = [0.0]
    rates = Rates(lambda: now[0])
    assert [rates.take("demo", "k", 2) for _ in range(2)] == [0, 0]
    assert rates.take("demo", "k", 2) == pytest.approx(30)
    assert rates.take("other", "k", 2) == 0
    now[0] = 30
    assert rates.take("demo", "k", 2) == 0
    now[0] = 1000
    rates.forget_full()
    assert [rates.take("demo", "k", 2) == 0 for _ in range(3)] == [True, True, False]


async def test_the_audit_log_has_a_line_for_each_request_without_its_prompt(
    stage: Stage, client: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    await guarded(stage)
    with caplog.at_level(logging.INFO, "dreambooth.audit"):
        for headers in (bearer(KEYS["robot"]), bearer("guessed")):
            async with client.post(PATH, json=BODY, headers=headers) as answer:
                await answer.read()
        async with client.post("/demo/nobody/v1/images/generations", data=b"{") as answer:
            await answer.read()
    lines = [json.loads(record.message) for record in caplog.records if record.name == "dreambooth.audit"]
    assert [(line["key"], line["model"], line["status"]) for line in lines] == [
        ("robot", "rex", 200), (None, "rex", 401), (None, None, 400)
    ]  # fmt: skip
    assert lines[0]["digest"] == digest(1)
    assert lines[0]["prompt_sha256"] == hashlib.sha256(b"a photo of rex").hexdigest()
    assert set(lines[0]) == {"time", "key", "namespace", "model", "digest", "status", "seconds", "prompt_sha256"}
    assert not any(secret in caplog.text for secret in ("a photo of rex", *KEYS.values()))
    metrics = stage.metrics()
    assert 'requests_total{code="401",model="rex",namespace="demo"} 1.0' in metrics
    assert "nobody" not in metrics


@pytest.mark.parametrize(
    ("verdict", "open_", "status", "code"),
    [(200, False, 200, None), (403, True, 400, "content_policy_violation"), (500, False, 503, "check_unavailable"),
     (500, True, 200, None), (None, False, 503, "check_unavailable")],
)  # fmt: skip
async def test_the_content_check_has_the_word(
    tmp_path: Path, verdict: int | None, open_: bool, status: int, code: str | None
) -> None:
    asked = []

    async def check(request: web.Request) -> web.Response:
        asked.append(await request.json())
        return web.json_response({"message": "Not this."}, status=verdict or 200)

    app = web.Application()
    app.router.add_post("/", check)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = "http://{}:{}/".format(*runner.addresses[0])
    if verdict is None:
        await runner.cleanup()
    changes = {"check_url": url, "check_open": open_, "log_prompts": True}
    async with staged(tmp_path, **changes) as stage, aiohttp.ClientSession(stage.url) as client:
        await guarded(stage)
        async with client.post("/demo/open/v1/images/generations", json=BODY) as answer:
            assert answer.status == status
            if code:
                assert (await answer.json())["error"]["code"] == code
        assert len(stage.replicas[0].asked) == (status == 200)
    await runner.cleanup()
    expected = {"prompt": "a photo of rex", "negative_prompt": "", "namespace": "demo", "model": "open"}
    assert asked == ([] if verdict is None else [expected])
