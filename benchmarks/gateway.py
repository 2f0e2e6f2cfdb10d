"""What does the gateway add to a request? python benchmarks/gateway.py [--requests 500]

The same replica is asked directly and through a gateway process, in turns, one request at a time; then by many clients
at once. It is a stand-in that answers at once with a tiny picture, so that nothing but the way there is measured. One
JSON object.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp
from timed.report import host, tell

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests/server"))

from gateway_fakes import BODY, PATH, REX, FakeOperator, FakeReplica, route, target  # noqa: E402
from gateway_kit import GatewayProcess  # noqa: E402

CLIENTS = 32
DIRECT = "/v1/images/generations"


async def seconds(session: aiohttp.ClientSession, url: str) -> float:
    """How long one request takes."""
    began = time.perf_counter()
    async with session.post(url, json=BODY) as answer:
        await answer.read()
        answer.raise_for_status()
    return time.perf_counter() - began


async def per_second(session: aiohttp.ClientSession, url: str, requests: int) -> float:
    """Requests a second of many clients."""
    left = iter(range(requests))

    async def client() -> None:
        for _ in left:
            await seconds(session, url)

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return requests / (time.perf_counter() - began)


def milliseconds(times: list[float]) -> dict[str, float]:
    """Median and 95th percentile."""
    return {
        "p50": round(1e3 * statistics.median(times), 2),
        "p95": round(1e3 * statistics.quantiles(times, n=20)[18], 2),
    }


async def measure(requests: int, folder: Path) -> dict[str, Any]:
    """Both ways, and what lies between them."""
    operator, replica = await FakeOperator().start(), await FakeReplica("rex-1").start()
    operator.tell([route("rex", target(), target_in_flight=CLIENTS)], {REX: [replica]})
    gateway = GatewayProcess(operator, folder)
    await gateway.start()
    urls = {"direct": f"http://{replica.address}{DIRECT}", "gateway": gateway.url + PATH}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        times: dict[str, list[float]] = {way: [] for way in urls}
        for number in range(requests + 20):
            for way, url in urls.items():
                taken = await seconds(session, url)
                if number >= 20:
                    times[way].append(taken)
        rates = {way: round(await per_second(session, url, requests), 1) for way, url in urls.items()}
    await gateway.stop()
    await replica.stop()
    await operator.stop()
    found = {way: milliseconds(taken) for way, taken in times.items()}
    added = {which: round(found["gateway"][which] - found["direct"][which], 2) for which in ("p50", "p95")}
    return {"milliseconds": {**found, "added": added}, "requestsPerSecond": rates, "clients": CLIENTS}


def main() -> None:
    """Print the figures, the machine and the goals."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=500)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = asyncio.run(measure(options.requests, Path(folder)))
    added = figures["milliseconds"]["added"]
    goals = {
        "added milliseconds, p50": {"value": added["p50"], "goal": 10, "met": added["p50"] <= 10},
        "added milliseconds, p95": {"value": added["p95"], "goal": 20, "met": added["p95"] <= 20},
    }
    tell({**figures, "machine": host(), "goals": goals})


if __name__ == "__main__":
    main()
