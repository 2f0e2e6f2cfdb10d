"""A job's life under faults, and the state in which it ends."""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.operator.stage import world
from tests.operator.stage.api import Api
from tests.operator.stage.apiserver import ApiServer, free_port
from tests.operator.stage.proxy import Dropped, Proxy, Refusal, Request, gone, silence, whole

# A disturbed run may wait for back-offs and for a silent watch to be opened anew.
PATIENCE = 120.0


@dataclass(frozen=True)
class Calm:
    """The undisturbed run: its final state and how many writes it took."""

    state: dict[str, Any]
    writes: int


async def _settled(api: Api, namespace: str, wanted: dict[str, Any] | None = None) -> dict[str, Any]:
    """The final state, once it does not change any more. What is refused is tried again, ever later: for a state other
    than `wanted` that may take until the patience is over."""
    await world.finished(api, namespace, "robot", PATIENCE)
    before, deadline = None, time.monotonic() + PATIENCE
    while True:
        # Namespaces differ from run to run.
        state = world.without_namespace(await world.final_state(api, namespace), namespace)
        if state == before and (wanted in (None, state) or time.monotonic() > deadline):
            return state
        before = state
        await asyncio.sleep(0.7)


async def undisturbed(server: ApiServer, api: Api, namespace: str) -> Calm:
    """A run through a proxy that does nothing."""
    await api.namespace(namespace)
    async with Proxy().standing_before(server) as proxy, world.operating(proxy.url, namespace):
        await api.create(api.path("dreamboothjobs", namespace), world.job("robot"))
        state = await _settled(api, namespace)
        return Calm(state, sum(request.write for request in proxy.requests))


async def killed(server: ApiServer, api: Api, namespace: str, number: int) -> dict[str, Any]:
    """A run whose operator dies after its write `number` was carried out; a new one goes on."""
    await api.namespace(namespace)
    dead, writes = asyncio.Event(), 0

    async def after(request: Request) -> None:
        nonlocal writes
        writes += request.write
        if dead.is_set() or (request.write and writes == number + 1):
            dead.set()
            raise Dropped

    async def before(request: Request) -> Refusal | None:
        # A dead process sends nothing.
        if dead.is_set():
            raise Dropped
        return None

    async with (
        Proxy(before=before, after=after).standing_before(server) as proxy,
        world.operating(proxy.url, namespace),
    ):
        await api.create(api.path("dreamboothjobs", namespace), world.job("robot"))
        # Of its last writes some depend on timing: a run may end without them.
        life = asyncio.create_task(_settled(api, namespace))
        death = asyncio.create_task(dead.wait())
        await asyncio.wait([life, death], return_when=asyncio.FIRST_COMPLETED)
        life.cancel()
        death.cancel()
    async with world.operating(server.url, namespace):
        return await _settled(api, namespace)


async def killed_process(server: ApiServer, api: Api, namespace: str, number: int, log: Path) -> dict[str, Any]:
    """As `killed`, with the operator's own process and SIGKILL."""
    await api.namespace(namespace)
    dead, writes = asyncio.Event(), 0

    async def after(request: Request) -> None:
        nonlocal writes
        writes += request.write
        if request.write and writes == number + 1:
            process.kill()
            dead.set()
            raise Dropped

    def environment() -> dict[str, str]:
        ports = {name: str(free_port()) for name in ("DREAMBOOTH_HEALTH_PORT", "DREAMBOOTH_METRICS_PORT")}
        return {"DREAMBOOTH_NAMESPACES": namespace, **ports}

    async with Proxy(after=after).standing_before(server) as proxy:
        process = await world.spawn(server.kubeconfig(proxy.url), log, **environment())
        await api.create(api.path("dreamboothjobs", namespace), world.job("robot"))
        async with asyncio.timeout(PATIENCE):
            await dead.wait()
        await process.wait()
        process = await world.spawn(server.kubeconfig(proxy.url), log, **environment())
        try:
            return await _settled(api, namespace)
        finally:
            process.kill()
            await process.wait()


async def disturbed(
    server: ApiServer, api: Api, namespace: str, rules: dict[str, Any], wanted: dict[str, Any]
) -> dict[str, Any]:
    """A run through a proxy with rules, that is to end as `wanted`."""
    await api.namespace(namespace)
    async with Proxy(**rules).standing_before(server) as proxy, world.operating(proxy.url, namespace):
        await api.create(api.path("dreamboothjobs", namespace), world.job("robot"))
        return await _settled(api, namespace, wanted)


def refusing(status: int, share: float, **headers: str) -> dict[str, Any]:
    """A share of all requests but watches is refused."""
    dice = random.Random(status)

    async def before(request: Request) -> Refusal | None:
        return Refusal(status, headers) if not request.watch and dice.random() < share else None

    return {"before": before}


def conflicting() -> dict[str, Any]:
    """A share of the writes conflicts; not of events, of which a 409 says that they were told already."""
    dice = random.Random(409)

    async def before(request: Request) -> Refusal | None:
        writes = request.method == "PATCH" or (request.method == "POST" and "/events" not in request.path)
        return Refusal(409) if writes and dice.random() < 0.4 else None

    return {"before": before}


def unheard() -> dict[str, Any]:
    """A share of the writes is carried out, and its answer lost."""
    dice = random.Random(1)

    async def after(request: Request) -> None:
        if request.write and dice.random() < 0.4:
            raise Dropped

    return {"after": after}


def slow() -> dict[str, Any]:
    """Every answer takes its time."""
    dice = random.Random(2)

    async def before(request: Request) -> Refusal | None:
        await asyncio.sleep(dice.random() * 0.5)
        return None

    return {"before": before}


async def expired(request: Request, lines: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """A watch that has expired."""
    yield gone()


async def expiring(request: Request, lines: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """A watch that expires after every third event."""
    count = 0
    async for line in lines:
        yield line
        count += 1
        if count == 3:
            yield gone()
            return


async def muted(request: Request, lines: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """A watch that falls silent after two events, and stays open."""
    count = 0
    async for line in lines:
        yield line
        count += 1
        if count == 2:
            await silence()


async def doubled(request: Request, lines: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """A watch that says everything twice, and once more what it said before."""
    last = b""
    async for line in lines:
        for said in (line, line, last):
            if said:
                yield said
        last = line


async def truncated(request: Request, lines: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """A watch that breaks off in the middle of every third event."""
    count = 0
    async for line in lines:
        count += 1
        if count == 3:
            yield line[: len(line) // 2]
            return
        yield line


FAULTS: dict[str, dict[str, Any]] = {
    "409": conflicting(),
    "429": refusing(429, 0.2, **{"Retry-After": "1"}),
    "500": refusing(500, 0.1),
    "unheard": unheard(),
    "slow": slow(),
    "410": {"watch": expiring},
    "muted": {"watch": muted},
    "doubled": {"watch": doubled},
    "truncated": {"watch": truncated},
}
__all__ = ["FAULTS", "Calm", "disturbed", "expired", "killed", "killed_process", "undisturbed", "whole"]
