"""What can be drawn at a subject's URL, and its page."""

import aiohttp
import pytest
from gateway_fakes import REX, digest, route, target
from gateway_kit import Stage

CANARY = "canary/demo/rex"
POOL = "pool/demo/default"


async def listed(client: aiohttp.ClientSession) -> list[dict]:
    async with client.get("/demo/rex/v1/models") as answer:
        assert answer.status == 200, await answer.text()
        return (await answer.json())["data"]


@pytest.mark.parametrize("shared", [False, True])
async def test_a_subject_and_its_base_are_listed_and_asked_for_once(
    stage: Stage, client: aiohttp.ClientSession, shared: bool
) -> None:
    backend = POOL if shared else REX
    replica = await stage.replica("rex-1")
    await stage.tell([route("rex", target(backend), shared=shared)], {backend: [replica]})
    entries = await listed(client)
    assert [(entry["id"], entry["dreambooth"]["digest"]) for entry in entries] == [
        ("rex", digest(1)),
        ("base", digest(0)),
    ]
    # It sleeps, and whoever opens the page does not wake it.
    await stage.tell([route("rex", target(backend), shared=shared)], {backend: []})
    assert await listed(client) == entries
    assert replica.listed == 1
    assert (await (await client.get("/demo/rex/v1/models/base")).json()) == entries[1]
    assert (await client.get("/demo/rex/v1/models/other")).status == 404
    assert (await stage.told())["traffic"] == {}


async def test_revisions_are_listed_while_there_are_several(stage: Stage, client: aiohttp.ClientSession) -> None:
    replicas = [await stage.replica("stable"), await stage.replica("canary")]
    targets = [target(weight=90), target(CANARY, 2, 10)]
    await stage.tell([route("rex", *targets)], {REX: replicas[:1], CANARY: []})
    assert [entry["id"] for entry in await listed(client)] == ["rex", "base"]
    await stage.tell([route("rex", *targets)], {REX: replicas[:1], CANARY: replicas[1:]})
    pins = [f"rex@{digest(number).removeprefix('sha256:')[:12]}" for number in (1, 2)]
    assert [entry["id"] for entry in await listed(client)] == ["rex", *pins, "base"]


@pytest.mark.parametrize("shared", [False, True])
async def test_a_subject_asleep_that_was_never_seen_is_not_woken_for_its_list(
    stage: Stage, client: aiohttp.ClientSession, shared: bool
) -> None:
    backend = POOL if shared else REX
    await stage.tell([route("rex", target(backend), shared=shared)], {backend: []})
    entries = await listed(client)
    assert [(entry["id"], entry["owned_by"], entry["dreambooth"]) for entry in entries] == [
        ("rex", "demo", None), ("base", "demo", None)
    ]  # fmt: skip
    assert (await (await client.get("/demo/rex/v1/models/rex")).json()) == entries[0]
    told = await stage.told()
    assert (told["load"]["waiting"], stage.gateway.tally.waiting.total()) == (0, 0)
    await stage.tell([route("rex", target(backend), shared=shared)], {backend: [await stage.replica("rex-1")]})
    assert [entry["dreambooth"]["digest"] for entry in await listed(client)] == [digest(1), digest(0)]


async def test_the_page_is_at_the_subjects_url_and_knows_the_way_to_the_others(
    stage: Stage, client: aiohttp.ClientSession
) -> None:
    await stage.tell([route("rex", target())], {})
    for path in ("/", "/demo/rex", "/demo/rex/"):
        async with client.get(path) as answer:
            assert answer.url.path == "/demo/rex/"
            assert '<meta name="gateway" content="../../">' in await answer.text()
    for part in ("page.js", "page.css", "api.js", "history.js"):
        assert (await client.get(f"/demo/rex/playground/{part}")).status == 200
    for path in ("/demo/nobody/", "/demo/nobody", "/demo/rex/playground/other.js", "/nothing"):
        async with client.get(path) as answer:
            assert answer.status == 404
            assert set((await answer.json())["error"]) == {"message", "type", "param", "code"}
