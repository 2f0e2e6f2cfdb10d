"""How many jobs one operator looks after, and how many its peer does.

python benchmarks/control_plane.py [--jobs 1000] [--peer FOLDER] [--soak SECONDS] [--plot FILE.png]

The operator's own process before a real API server and etcd on loopback. There are no nodes: the tests' driver makes
each Job's pod, which then waits. Jobs are created as fast as the server takes them, then at 5 a second for a minute
(`--rate-seconds`), five times; then the operator is restarted, five times: of each the median counts, as a machine is
seldom as fast twice. `--peer` does the same with Kubeflow Trainer and JobSet of FOLDER (`timed/controllers.py` says how
to get them), as they are shipped, and once more without their limit of requests a second, each before an API server of
its own; their minutes and restarts take turns with the operator's. The API servers do not list everything anew to
compare their caches with etcd, as by default they do at some time of every five to seven and a half minutes, in one's
minute and not in another's. `--soak` lets jobs come and go for so long afterwards, driven to their ends by the driver.
One JSON object; `--plot` draws it.
"""

import argparse
import asyncio
import contextlib
import functools
import math
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.timed import controllers, soak  # noqa: E402
from benchmarks.timed.controllers import Controllers, Operator, Peer, Samples  # noqa: E402
from benchmarks.timed.report import host, tell  # noqa: E402
from tests.operator.stage import apiserver  # noqa: E402
from tests.operator.stage.api import Api, ApiError  # noqa: E402
from tests.operator.stage.driver import Driver  # noqa: E402

NAMESPACES = 10
CREATORS = 16
RATE = 5
MINUTES = 5
RESTARTS = 5
UNCOMPARED = "--feature-gates=DetectCacheInconsistency=false"
# Requests a second: more than an API server of two cores answers.
UNLIMITED = 10_000
OWN = "this operator"
SHIPPED, FREED = "Kubeflow Trainer, as shipped", "Kubeflow Trainer, without its rate limit"

Figures = dict[str, Any]
Curve = list[tuple[float, int]]
Curves = dict[str, Curve]
Start = Callable[[apiserver.ApiServer, Api, Path], Controllers]


def rank(found: list[float], q: float) -> float:
    """The quantile of sorted values, by nearest rank: of a hundred, the 99th is p99, not the last."""
    return round(found[math.ceil(q * len(found)) - 1], 3)


def total(samples: Samples, name: str) -> float:
    """A metric summed over its labels."""
    return sum(value for (found, _), value in samples.items() if found == name)


def quantiles(before: Samples, after: Samples, name: str) -> dict[str, float]:
    """The upper bounds of the histogram's buckets in which p50 and p99 lie, over all labels, seconds."""
    counts: dict[float, float] = {}
    for (found, labels), value in after.items():
        if found == f"{name}_bucket":
            bound = float(dict(labels)["le"])
            counts[bound] = counts.get(bound, 0) + value - before.get((found, labels), 0)
    whole = max(counts.values(), default=0)

    def quantile(q: float) -> float:
        return next((bound for bound in sorted(counts) if whole and counts[bound] >= q * whole), 0.0)

    return {"p50": quantile(0.5), "p99": quantile(0.99)}


def memory(found: Controllers) -> dict[str, float]:
    """Resident, now and at the most since the start."""
    return {key: round(value, 1) for key, value in found.usage().items() if key.startswith("rss")}


async def settle(found: Controllers, seconds: float) -> None:
    """Wait until nothing is reconciled any more. Raises TimeoutError."""
    calm, before = 0, -1.0
    async with asyncio.timeout(seconds):
        while calm < 5:
            now = total(await found.samples(), f"{found.reconciles}_count")
            calm, before = calm + 1 if now == before else 0, now
            await asyncio.sleep(0.5)


async def create(found: Controllers, n: int) -> None:
    """The n-th job; again, when a webhook did not answer in time. Raises ApiError."""
    while True:
        try:
            await found.api.create(found.path(f"load-{n % NAMESPACES}"), found.job(f"job-{n}"))
            return
        except ApiError as e:
            if e.status < 500:
                raise


async def children(found: Controllers, wanted: int, begun: float, curve: Curve) -> float:
    """Wait until `wanted` Jobs exist, the last of a job's first children; seconds since `begun`."""
    seen = 0
    async for kind, _ in found.api.events("jobs"):
        seen += kind == "ADDED"
        curve.append((time.monotonic() - begun, seen))
        if seen >= wanted:
            break
    return time.monotonic() - begun


async def burst(found: Controllers, jobs: int, curve: Curve) -> Figures:
    """All at once, as fast as the server takes them."""
    before, used, begun = await found.samples(), found.usage(), time.monotonic()
    waiting = asyncio.create_task(children(found, jobs, begun, curve))
    numbers = iter(range(jobs))

    async def creator() -> None:
        for n in numbers:
            await create(found, n)

    await asyncio.gather(*(creator() for _ in range(CREATORS)))
    created, done = time.monotonic() - begun, await waiting
    # What is done for a job does not end with its children.
    await settle(found, 600 + jobs / 5)
    after, cpu = await found.samples(), found.usage()["cpuSeconds"] - used["cpuSeconds"]
    calls = total(after, found.requests) - total(before, found.requests)
    return {
        "secondsUntilCreated": round(created, 1),
        "secondsUntilAllChildrenExist": round(done, 1),
        "cpuSeconds": round(cpu, 1),
        "jobsPerCpuSecond": round(jobs / cpu, 1),
        "apiCallsPerJob": round(calls / jobs, 2),
        "reconcileSeconds": quantiles(before, after, found.reconciles),
        **memory(found),
    }


async def steady(found: Controllers, first: int, seconds: int) -> Figures:
    """Jobs at RATE a second: from the answer to `create` until the job's first Job exists, seconds."""
    made: dict[str, float] = {}
    seen: dict[str, float] = {}
    before = await found.samples()

    async def watch(version: str) -> None:
        async for kind, body in found.api.events("jobs", version):
            if kind == "ADDED":
                seen[body["metadata"]["name"].removesuffix(found.suffix)] = time.monotonic()

    version = (await found.api.call("GET", found.api.path("jobs") + "?limit=1"))["metadata"]["resourceVersion"]
    watching = asyncio.create_task(watch(version))
    for n in range(first, first + RATE * seconds):
        begun = time.monotonic()
        await create(found, n)
        made[f"job-{n}"] = time.monotonic()
        await asyncio.sleep(max(0.0, 1 / RATE - (time.monotonic() - begun)))
    async with asyncio.timeout(120):
        while not made.keys() <= seen.keys():
            await asyncio.sleep(0.1)
    watching.cancel()
    after, waits = await found.samples(), sorted(max(0.0, seen[name] - when) for name, when in made.items())
    return {
        "jobsPerSecond": RATE,
        "jobs": len(waits),
        "secondsToFirstChild": {"p50": rank(waits, 0.5), "p99": rank(waits, 0.99)},
        "reconcileSeconds": quantiles(before, after, found.reconciles),
        "queueDelaySeconds": quantiles(before, after, found.delays),
    }


async def restart(found: Controllers, jobs: int) -> Figures:
    """From the new processes' start until they have looked at every job."""
    await found.stop()
    begun = time.monotonic()
    await found.start()
    listed = time.monotonic() - begun
    async with asyncio.timeout(600):
        while found.looked_at(samples := await found.samples()) < jobs:
            await asyncio.sleep(0.2)
    return {
        "secondsUntilListed": round(listed, 1),
        "secondsUntilInSync": round(time.monotonic() - begun, 1),
        "cpuSeconds": round(found.usage()["cpuSeconds"], 1),
        "apiCallsPerJob": round(total(samples, found.requests) / jobs, 2),
        **memory(found),
    }


async def in_turns(
    times: int, everyone: dict[str, Controllers], look: Callable[[Controllers, int], Awaitable[Figures]]
) -> dict[str, list[Figures]]:
    """What `look` finds of each, so many times: the machine's good and bad minutes come to all."""
    found: dict[str, list[Figures]] = {name: [] for name in everyone}
    for n in range(times):
        for name, one in everyone.items():
            found[name].append(await look(one, n))
    return found


def median(every: list[Figures], value: Callable[[Figures], float], name: str) -> Figures:
    """The one with the median of a value, and under `name` the values of all, as they came."""
    return {**sorted(every, key=value)[len(every) // 2], name: [value(one) for one in every]}


async def measure(
    servers: dict[str, apiserver.ApiServer], starts: dict[str, Start], options: argparse.Namespace, curves: Curves
) -> dict[str, Figures]:
    """All phases, by name."""
    seconds, jobs = options.rate_seconds, options.jobs + MINUTES * RATE * options.rate_seconds
    async with contextlib.AsyncExitStack() as stack:
        everyone = {name: await ready(stack, servers[name], start) for name, start in starts.items()}
        async with contextlib.AsyncExitStack() as driven:
            for one in everyone.values():
                await driven.enter_async_context(Driver.at_work(one.api, nodes=False))
            bursts = {name: await burst(one, options.jobs, curves[name]) for name, one in everyone.items()}
            minutes = await in_turns(
                MINUTES, everyone, lambda one, n: steady(one, options.jobs + n * RATE * seconds, seconds)
            )
        restarts = await in_turns(RESTARTS, everyone, lambda one, n: restart(one, jobs))
        found = {
            name: {
                "jobs": options.jobs,
                "burst": bursts[name],
                "steady": median(minutes[name], lambda one: one["secondsToFirstChild"]["p99"], "p99OfAll"),
                "restart": median(restarts[name], lambda one: one["secondsUntilInSync"], "secondsUntilInSyncOfAll"),
            }
            for name in everyone
        }
        own = everyone[OWN]
        if options.soak and isinstance(own, Operator):
            found[OWN]["soak"] = await soak.soak(own, options.soak)
    return found


async def ready(stack: contextlib.AsyncExitStack, server: apiserver.ApiServer, start: Start) -> Controllers:
    """Controllers at work before their API server, with namespaces for the load, until the stack is left."""
    api = await stack.enter_async_context(Api.of(server))
    found = start(server, api, Path(stack.enter_context(tempfile.TemporaryDirectory())))
    for n in range(NAMESPACES):
        await api.namespace(f"load-{n}")
    stack.push_async_callback(found.stop)
    await found.install()
    return found


VALUES: dict[str, tuple[Callable[[Figures], float], str]] = {
    "seconds until all children exist": (lambda f: f["burst"]["secondsUntilAllChildrenExist"], "<="),
    "jobs per second and core": (lambda f: f["burst"]["jobsPerCpuSecond"], ">="),
    "API calls a job": (lambda f: f["burst"]["apiCallsPerJob"], "<="),
    "p99 seconds to the first child at 5 jobs/s": (lambda f: f["steady"]["secondsToFirstChild"]["p99"], "<="),
    "RSS, MiB": (lambda f: max(f["burst"]["rssMiB"], f["restart"]["rssMiB"]), "<="),
    "restart to in-sync, seconds": (lambda f: f["restart"]["secondsUntilInSync"], "<="),
}
GOALS = {
    "jobs per second and core": 20,
    "p99 seconds to the first child at 5 jobs/s": 1.0,
    "RSS, MiB": 300,
    "restart to in-sync, seconds": 60,
}


def goals(figures: Figures) -> Figures:
    """The issue's goals, at the number of jobs that was measured; and to be the peer's equal in everything."""

    def held(name: str, goal: float) -> Figures:
        value, sign = VALUES[name][0](figures), VALUES[name][1]
        return {"value": value, "goal": goal, "met": value >= goal if sign == ">=" else value <= goal}

    found = {name: held(name, goal) for name, goal in GOALS.items()}
    for peer, theirs in figures.get("peers", {}).items():
        found |= {f"{name}: {peer}": held(name, value(theirs)) for name, (value, _) in VALUES.items()}
    return found | (soak.goals(figures["soak"]) if "soak" in figures else {})


def plot(curves: dict[str, Curve], jobs: int, path: str) -> None:
    """Jobs with all their first children over time."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 3.5), layout="constrained")
    for (name, curve), colour in zip(curves.items(), ("#2563eb", "#999", "#ea580c"), strict=False):
        axes.plot(*zip(*curve, strict=True), color=colour, label=name)
    axes.set(xlabel="seconds since the first create", ylabel="jobs with their children", title=f"{jobs} jobs")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def check_peer(folder: Path) -> None:
    """Whether the peer's programs are there; else say what to do."""
    if lacks := controllers.lacking(folder):
        print(f"{folder} lacks {', '.join(lacks)}.\n{controllers.__doc__}", file=sys.stderr)
        raise SystemExit(2)


def main() -> None:
    """Print the figures, the machine and the goals."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--rate-seconds", type=int, default=60)
    parser.add_argument("--peer", type=Path, metavar="FOLDER")
    parser.add_argument("--soak", type=float, default=0, metavar="SECONDS")
    parser.add_argument("--plot", default="", metavar="FILE.png")
    options = parser.parse_args()
    starts: dict[str, Start] = {OWN: Operator}
    if options.peer:
        options.peer = options.peer.absolute()
        check_peer(options.peer)
        for name, limit in {SHIPPED: None, FREED: UNLIMITED}.items():
            starts[name] = functools.partial(Peer, checkouts=options.peer, limit=limit)
    curves: Curves = {name: [] for name in starts}
    with contextlib.ExitStack() as stack:
        servers = {name: stack.enter_context(apiserver.running(UNCOMPARED, audit=False)) for name in starts}
        peers = asyncio.run(measure(servers, starts, options, curves))
    figures = peers.pop(OWN)
    if options.peer:
        figures |= {"peers": peers, "peerVersions": controllers.versions(options.peer)}
    if options.plot:
        plot(curves, options.jobs, options.plot)
    size = round(psutil.virtual_memory().total / 2**30)
    machine = host(memoryGiB=size, loadAverage=os.getloadavg())
    tell({**figures, "machine": machine, "goals": goals(figures)})


if __name__ == "__main__":
    main()
