"""How many jobs one operator looks after: python benchmarks/control_plane.py [--jobs 1000] [--soak SECONDS]

The operator's own process before a real API server and etcd on loopback. There are no nodes: the tests' driver makes
each Job's pod, which then waits. Jobs are created as fast as the server takes them, then at 5 a second; then the
operator is restarted. `--soak` lets jobs come and go for so long afterwards, driven to their ends by the driver. One
JSON object; `--plot FILE.png` draws it.
"""

import argparse
import asyncio
import contextlib
import json
import math
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from prometheus_client.parser import text_string_to_metric_families  # noqa: E402

from tests.operator.stage import apiserver, world  # noqa: E402
from tests.operator.stage.api import Api, ApiError  # noqa: E402
from tests.operator.stage.driver import Driver  # noqa: E402

NAMESPACES = 10
CREATORS = 16
RATE = 5


class Run:
    """One API server, one operator, and what was measured."""

    def __init__(self, server: apiserver.ApiServer, api: Api, folder: Path) -> None:
        self.server, self.api, self.log = server, api, folder / "operator.log"
        self.health, self.metrics = apiserver.free_port(), apiserver.free_port()
        self.process: asyncio.subprocess.Process | None = None
        self.curve: list[tuple[float, int]] = []

    async def start(self) -> None:
        """The operator, until its caches are warm."""
        ports = {"DREAMBOOTH_HEALTH_PORT": str(self.health), "DREAMBOOTH_METRICS_PORT": str(self.metrics)}
        self.process = await world.spawn(self.server.kubeconfig(), self.log, DREAMBOOTH_LOG_LEVEL="WARNING", **ports)
        await world.ready(self.api, self.health, 300)

    async def stop(self) -> None:
        """SIGTERM."""
        if self.process and self.process.returncode is None:
            self.process.terminate()
            await self.process.wait()

    def usage(self) -> dict[str, float]:
        """Of the operator's process."""
        assert self.process
        found = psutil.Process(self.process.pid)
        cpu = found.cpu_times()
        return {
            "cpuSeconds": cpu.user + cpu.system,
            "rssMiB": found.memory_info().rss / 2**20,
            "files": found.num_fds(),
        }

    async def settle(self, seconds: float = 300.0) -> None:
        """Wait until nothing waits for its turn. Raises TimeoutError."""
        calm = 0
        async with asyncio.timeout(seconds):
            while calm < 5:
                async with self.api.session.get(f"http://127.0.0.1:{self.health}/healthz") as answer:
                    calm = calm + 1 if (await answer.json())["oldestWork"] < 0.3 else 0
                await asyncio.sleep(0.5)

    async def samples(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        """The operator's metrics."""
        async with self.api.session.get(f"http://127.0.0.1:{self.metrics}/metrics") as answer:
            families = text_string_to_metric_families(await answer.text())
        return {(s.name, tuple(sorted(s.labels.items()))): s.value for f in families for s in f.samples}


def job(n: int) -> dict[str, Any]:
    """The n-th job. Without a prior its input is checked by one pod."""
    return world.job(f"job-{n}", prior={"weight": 0})


def rank(found: list[float], q: float) -> float:
    """The quantile of sorted values, by nearest rank: of a hundred, the 99th is p99, not the last."""
    return round(found[math.ceil(q * len(found)) - 1], 3)


def total(samples: dict[Any, float], name: str) -> float:
    """A metric summed over its labels."""
    return sum(value for (found, _), value in samples.items() if found == name)


def quantile(before: dict[Any, float], after: dict[Any, float], name: str, q: float) -> float:
    """The upper bound of the histogram's bucket in which the quantile lies, over all labels, seconds."""
    counts: dict[float, float] = {}
    for (found, labels), value in after.items():
        if found == f"{name}_bucket":
            bound = float(dict(labels)["le"])
            counts[bound] = counts.get(bound, 0) + value - before.get((found, labels), 0)
    whole = max(counts.values(), default=0)
    return next((bound for bound in sorted(counts) if whole and counts[bound] >= q * whole), 0.0)


async def create(run: Run, first: int, count: int) -> None:
    """Jobs, as fast as the server takes them."""
    numbers = iter(range(first, first + count))

    async def creator() -> None:
        for n in numbers:
            await run.api.create(run.api.path("dreamboothjobs", f"load-{n % NAMESPACES}"), job(n))

    await asyncio.gather(*(creator() for _ in range(CREATORS)))


async def children(run: Run, wanted: int, begun: float) -> float:
    """Wait until `wanted` prepare Jobs exist, the last of a job's first children; seconds since `begun`."""
    seen = 0
    async for kind, _ in run.api.events("jobs"):
        seen += kind == "ADDED"
        run.curve.append((time.monotonic() - begun, seen))
        if seen >= wanted:
            break
    return time.monotonic() - begun


async def burst(run: Run, jobs: int) -> dict[str, Any]:
    """All at once."""
    before, used, begun = await run.samples(), run.usage(), time.monotonic()
    waiting = asyncio.create_task(children(run, jobs, begun))
    await create(run, 0, jobs)
    created, done = time.monotonic() - begun, await waiting
    after, cpu = await run.samples(), run.usage()["cpuSeconds"] - used["cpuSeconds"]
    calls = total(after, "dreambooth_api_requests_total") - total(before, "dreambooth_api_requests_total")
    return {
        "secondsUntilCreated": round(created, 1),
        "secondsUntilAllChildrenExist": round(done, 1),
        "operatorCpuSeconds": round(cpu, 1),
        "jobsPerOperatorCpuSecond": round(jobs / cpu, 1),
        "apiCallsPerJob": round(calls / jobs, 2),
        "reconcileSeconds": {
            f"p{int(q * 100)}": quantile(before, after, "dreambooth_reconcile_duration_seconds", q) for q in (0.5, 0.99)
        },
        "rssMiB": round(run.usage()["rssMiB"], 1),
    }


async def steady(run: Run, first: int, seconds: int) -> dict[str, Any]:
    """Jobs at RATE a second: from the answer to `create` until the job's first Job exists, seconds."""
    made: dict[str, float] = {}
    seen: dict[str, float] = {}
    before = await run.samples()

    async def watch(version: str) -> None:
        async for kind, found in run.api.events("jobs", version):
            if kind == "ADDED":
                seen[found["metadata"]["name"].removesuffix("-prepare")] = time.monotonic()

    version = (await run.api.call("GET", run.api.path("jobs") + "?limit=1"))["metadata"]["resourceVersion"]
    watching = asyncio.create_task(watch(version))
    for n in range(first, first + RATE * seconds):
        begun = time.monotonic()
        await run.api.create(run.api.path("dreamboothjobs", f"load-{n % NAMESPACES}"), job(n))
        made[f"job-{n}"] = time.monotonic()
        await asyncio.sleep(max(0.0, 1 / RATE - (time.monotonic() - begun)))
    async with asyncio.timeout(120):
        while not made.keys() <= seen.keys():
            await asyncio.sleep(0.1)
    watching.cancel()
    after, found = await run.samples(), sorted(max(0.0, seen[name] - when) for name, when in made.items())
    return {
        "jobsPerSecond": RATE,
        "secondsToFirstChild": {
            "p50": rank(found, 0.5),
            "p99": rank(found, 0.99),
        },
        "jobs": len(found),
        "queueDelaySeconds": {"p99": quantile(before, after, "dreambooth_reconcile_queue_delay_seconds", 0.99)},
    }


async def restart(run: Run, jobs: int) -> dict[str, Any]:
    """From the new process' start until it has looked at every job."""
    await run.stop()
    begun = time.monotonic()
    await run.start()
    listed = time.monotonic() - begun
    async with asyncio.timeout(600):
        while total(await run.samples(), "dreambooth_reconcile_duration_seconds_count") < jobs:
            await asyncio.sleep(0.2)
    return {
        "secondsUntilListed": round(listed, 1),
        "secondsUntilInSync": round(time.monotonic() - begun, 1),
        "rssMiB": round(run.usage()["rssMiB"], 1),
    }


async def soak(run: Run, seconds: float) -> dict[str, Any]:
    """Jobs come, run to their ends and are deleted; usage is sampled."""
    samples, deadline, n = [], time.monotonic() + seconds, 0
    async with Driver.at_work(run.api, 0.2):
        while time.monotonic() < deadline:
            n += 1
            batch = [(f"load-{i % NAMESPACES}", f"soak-{n}-{i}") for i in range(10)]
            for namespace, name in batch:
                await run.api.create(run.api.path("dreamboothjobs", namespace), world.job(name))
            with contextlib.suppress(TimeoutError):
                await asyncio.gather(*(world.finished(run.api, *key, seconds=60) for key in batch))
            for plural in ("dreamboothjobs", "personalizedmodels", *world.CHILDREN, "pods"):
                for found in await run.api.list(plural):
                    if found["metadata"]["name"].startswith("soak-"):
                        with contextlib.suppress(ApiError):
                            where = (found["metadata"]["namespace"], found["metadata"]["name"])
                            await run.api.call(
                                "DELETE", run.api.path(plural, *where), {"propagationPolicy": "Background"}
                            )
            samples.append({"jobs": n * 10, **{k: round(v, 1) for k, v in run.usage().items()}})
    return {"seconds": seconds, "jobs": n * 10, "samples": samples}


async def measure(server: apiserver.ApiServer, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All phases."""
    async with Api.of(server) as api:
        run = Run(server, api, folder)
        for n in range(NAMESPACES):
            await api.namespace(f"load-{n}")
        try:
            await run.start()
            async with Driver.at_work(api, nodes=False):
                figures: dict[str, Any] = {"jobs": options.jobs, "burst": await burst(run, options.jobs)}
                await run.settle(60 + options.jobs / 10)
                figures["steady"] = await steady(run, options.jobs, options.rate_seconds)
            figures["restart"] = await restart(run, options.jobs + RATE * options.rate_seconds)
            if options.soak:
                figures["soak"] = await soak(run, options.soak)
        finally:
            await run.stop()
    if options.plot:
        plot(run.curve, figures, options.plot)
    return figures


def goals(figures: dict[str, Any]) -> dict[str, Any]:
    """The issue's goals, at the number of jobs that was measured."""
    rows = {
        "jobs per second and core": (figures["burst"]["jobsPerOperatorCpuSecond"], 20, ">="),
        "p99 seconds to the first child at 5 jobs/s": (figures["steady"]["secondsToFirstChild"]["p99"], 1.0, "<="),
        "RSS, MiB": (max(figures["burst"]["rssMiB"], figures["restart"]["rssMiB"]), 300, "<="),
        "restart to in-sync, seconds": (figures["restart"]["secondsUntilInSync"], 60, "<="),
    }
    return {
        name: {"value": value, "goal": goal, "met": value >= goal if sign == ">=" else value <= goal}
        for name, (value, goal, sign) in rows.items()
    }


def plot(curve: list[tuple[float, int]], figures: dict[str, Any], path: str) -> None:
    """Jobs with all their first children over time."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 3.5), layout="constrained")
    axes.plot(*zip(*curve, strict=True), color="#2563eb")
    axes.set(
        xlabel="seconds since the first create", ylabel="jobs with their children", title=f"{figures['jobs']} jobs"
    )
    axes.axvline(figures["burst"]["secondsUntilCreated"], color="#999", linestyle=":", label="all created")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Print the figures, the machine and the goals."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--rate-seconds", type=int, default=60)
    parser.add_argument("--soak", type=float, default=0)
    parser.add_argument("--plot", default="")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, apiserver.running(audit=False) as server:
        figures = asyncio.run(measure(server, options, Path(folder)))
    memory = round(psutil.virtual_memory().total / 2**30)
    machine = {"cores": os.cpu_count(), "memoryGiB": memory, "architecture": platform.machine(),
               "system": platform.system(), "loadAverage": os.getloadavg()}  # fmt: skip
    print(json.dumps({**figures, "machine": machine, "goals": goals(figures)}, indent=2))


if __name__ == "__main__":
    main()
