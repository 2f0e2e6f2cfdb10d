"""`benchmarks/control_plane.py --soak`: a long life of jobs that come, run to their ends and are deleted.

Every batch is one of ten jobs in a namespace of their own: half of them lose their children to their TTL, the others
to Kubernetes' own garbage collector. Between two batches nothing is left to do, so whatever is then held, grows only if
it leaks: memory, asyncio tasks, open files, and the API server's watches.
"""

import asyncio
import time
from statistics import linear_regression, median
from typing import Any

from benchmarks.timed.controllers import Operator
from tests.operator.stage import world
from tests.operator.stage.driver import Driver

NAMESPACE = "soak"
BATCH = 10
# Parts of the time that are printed, the last three quarters of which are compared: the first is for warming up.
PARTS = 12
HELD = ("rssMiB", "tasks", "files", "watches")
# How much of each may be there at the end more than after the first quarter: of the memory a share, of others a number.
MAY_GROW = {"rssMiB": 0.05, "tasks": 3, "files": 3, "watches": 3}

Sample = dict[str, float]


async def soak(found: Operator, seconds: float) -> dict[str, Any]:
    """What was held over the time, in parts, and how it grew."""
    samples: list[Sample] = []
    unfinished: list[str] = []
    begun, n = time.monotonic(), 0
    await found.api.namespace(NAMESPACE)
    with found.server.collecting_garbage():
        async with Driver.at_work(found.api, 0.2) as driver:
            while (age := time.monotonic() - begun) < seconds:
                unfinished += await batch(found, n)
                n += 1
                samples.append({"seconds": age, "jobs": n * BATCH, **await held(found)})
            failures = driver.failures
    return {
        "seconds": seconds,
        "jobs": n * BATCH,
        "unfinished": unfinished[:20],
        "driverFailures": failures[:20],
        **trends(samples, seconds),
    }


async def batch(found: Operator, n: int) -> list[str]:
    """Ten jobs from their creation until nothing is left of them; the names of what did not end."""
    names = [f"soak-{n}-{i}" for i in range(BATCH)]
    for i, name in enumerate(names):
        spec = {"ttlSecondsAfterFinished": 0} if i % 2 else {}
        await found.api.create(found.path(NAMESPACE), world.job(name, **spec))
    ends = await asyncio.gather(*(world.finished(found.api, NAMESPACE, name) for name in names), return_exceptions=True)
    late = [name for name, end in zip(names, ends, strict=True) if isinstance(end, BaseException)]
    for plural in ("dreamboothjobs", "personalizedmodels"):
        await found.api.call("DELETE", found.api.path(plural, NAMESPACE))
    try:
        async with asyncio.timeout(60):
            while left := [f"{NAMESPACE}/{name}" for name in await _left(found)]:
                await asyncio.sleep(0.2)
    except TimeoutError:
        late += left
    return late


async def held(found: Operator) -> Sample:
    """What the operator holds, and how many watches the API server serves (the driver's, which are always as many,
    too)."""
    text = await _metrics(found)
    watches = (line.rsplit(" ", 1)[1] for line in text.splitlines()
               if line.startswith("apiserver_longrunning_requests{") and 'verb="WATCH"' in line)  # fmt: skip
    return {**found.usage(), "tasks": await found.tasks(), "watches": sum(map(float, watches))}


def trends(samples: list[Sample], seconds: float) -> dict[str, Any]:
    """By part of the time the most that was held, and what of each is there more at the end than after the first
    quarter; of the memory the slope over the last three quarters, too."""
    parts: list[dict[str, Any]] = []
    for part in range(PARTS):
        of = [s for s in samples if part <= s["seconds"] / seconds * PARTS < part + 1]
        if of:
            most = {key: round(max(s[key] for s in of), 1) for key in HELD}
            parts.append({"minutes": round((part + 1) * seconds / PARTS / 60, 1), "jobs": of[-1]["jobs"], **most})
    warm = [s for s in samples if s["seconds"] >= seconds / 4]
    early, late = ([s for s in warm if low <= s["seconds"] / seconds < low + 0.25] for low in (0.25, 0.75))
    if len(early) < 2 or len(late) < 2:
        return {"parts": parts}
    start, end = ({key: round(median(s[key] for s in of), 1) for key in HELD} for of in (early, late))
    grown = {key: round(end[key] - start[key], 1) for key in HELD}
    slope = linear_regression([s["seconds"] / 3600 for s in warm], [s["rssMiB"] for s in warm]).slope
    return {"parts": parts, "afterTheFirstQuarter": start, "grown": grown, "rssMiBPerHour": round(slope, 2)}


def goals(figures: dict[str, Any]) -> dict[str, Any]:
    """Flat, and nothing that did not end."""
    stuck = len(figures["unfinished"]) + len(figures["driverFailures"])
    found = {"soak: jobs and children that did not end": {"value": stuck, "goal": 0, "met": stuck == 0}}
    for key, grown in figures.get("grown", {}).items():
        goal = MAY_GROW[key] * (figures["afterTheFirstQuarter"][key] if key == "rssMiB" else 1)
        found[f"soak: {key} grown by"] = {"value": grown, "goal": round(goal, 1), "met": grown <= goal}
    return found


async def _left(found: Operator) -> list[str]:
    plurals = ("dreamboothjobs", "personalizedmodels", *world.CHILDREN, "pods")
    lists = await asyncio.gather(*(found.api.list(plural, NAMESPACE) for plural in plurals))
    return [body["metadata"]["name"] for bodies in lists for body in bodies]


async def _metrics(found: Operator) -> str:
    async with found.api.session.get(f"{found.server.url}/metrics") as answer:
        answer.raise_for_status()
        return await answer.text()
