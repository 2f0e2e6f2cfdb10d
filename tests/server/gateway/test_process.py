"""Gateways as processes: one after the other is replaced under load, and no request is lost."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
from gateway_fakes import BODY, PATH, REX, FakeOperator, FakeReplica, route, target
from gateway_kit import GatewayProcess


class Service:
    """Sends each request to a gateway that is ready, as a Service does; it hears of an end a moment late."""

    def __init__(self) -> None:
        self.urls: list[str] = []
        self.statuses: list[int] = []
        self.ended = False

    async def client(self) -> None:
        """One client that asks again and again, over connections that it keeps."""
        async with aiohttp.ClientSession() as session:
            while not self.ended:
                url = self.urls[len(self.statuses) % len(self.urls)]
                async with session.post(url + PATH, json=BODY) as answer:
                    await answer.read()
                    self.statuses.append(answer.status)


@contextlib.asynccontextmanager
async def clients(service: Service, count: int) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(service.client()) for _ in range(count)]
    yield
    service.ended = True
    await asyncio.gather(*tasks)


async def test_metrics_are_on_a_port_that_is_not_the_clients(tmp_path: Path) -> None:
    operator = await FakeOperator().start()
    operator.tell([route("rex", target())], {REX: []})
    gateway = GatewayProcess(operator, tmp_path)
    await gateway.start()
    async with aiohttp.ClientSession() as client:
        async with client.get(gateway.metrics_url) as answer:
            assert 'dreambooth_gateway_in_flight_requests{model="rex",namespace="demo"} 0.0' in await answer.text()
        async with client.get(f"{gateway.url}/metrics") as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == (404, "not_found")
    await gateway.stop()
    await operator.stop()


async def test_a_rollout_of_gateways_loses_nothing(tmp_path: Path) -> None:
    operator = await FakeOperator().start()
    replica = await FakeReplica("rex-1").start()
    replica.seconds = 0.05
    operator.tell([route("rex", target())], {REX: [replica]})
    old, new = GatewayProcess(operator, tmp_path), GatewayProcess(operator, tmp_path)
    await old.start()
    service = Service()
    service.urls = [old.url]
    async with clients(service, 6):
        await new.start()
        service.urls = [old.url, new.url]
        ending = asyncio.create_task(old.stop())
        # Kubernetes takes the address away while the old one drains.
        await asyncio.sleep(0.3)
        service.urls = [new.url]
        audited = await ending
        done = len(service.statuses)
        while len(service.statuses) < done + 10:
            await asyncio.sleep(0.02)
    assert set(service.statuses) == {200}
    audited += await new.stop()
    assert len(audited) == len(service.statuses)
    counted = {r["gateway"]: r["traffic"]["demo/rex"][target().digest] for r in operator.reports if r["traffic"]}
    assert len(counted) == 2
    assert sum(traffic["requests"] for traffic in counted.values()) == len(service.statuses)
    await replica.stop()
    await operator.stop()
