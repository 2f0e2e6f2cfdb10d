"""How a pool serves fifty subjects, beside plain diffusers: python benchmarks/serving.py [--out FILE] [--plot FILE.png]
With --compile instead: what a step takes by compiled programs, and how long a replica makes them.

Ours is the real process of a pool; theirs is diffusers' pipeline behind FastAPI (`timed/plain_server.py`), one request
at a time, `load_lora_weights` and `set_adapters` per subject. Same base, adapters, steps and machine, one after the
other; every subject has been asked for once before the clock runs. Then swaps by tier, guidance in one pass against
two, and a thousand subjects on one replica. One JSON object.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
from timed.engine import percentiles
from timed.report import tell
from timed.store import store
from training import machine

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests/server"))

from server_kit import free_port, write_card, write_lora, write_manifest  # noqa: E402

BASE = ROOT / "examples/base"
RANK, STEPS, GUIDANCE = 4, 12, 4.0
CLIENTS = (1, 8, 32)
PROMPT = "a photo of sks robot in the snow"
Draw = Callable[[int, int], Awaitable[None]]


def make_subjects(folder: Path, count: int) -> dict[str, str]:
    """Random LoRA of U-Net and text encoder; name → digest."""
    found = {}
    for index in range(count):
        made = folder / f"subject-{index}"
        made.mkdir(parents=True)
        write_lora(made, BASE, seed=index, rank=RANK)
        write_card(made, BASE, name=made.name)
        found[made.name] = write_manifest(made)
    return found


@contextlib.contextmanager
def process(command: list[str], port: int, log: Path, **env: str) -> Iterator[psutil.Process]:
    """A server, once it is ready."""
    with log.open("wb") as out:
        started = subprocess.Popen(command, stdout=out, stderr=out, env={**os.environ, "HF_HUB_OFFLINE": "1", **env})
    try:
        deadline = time.monotonic() + 300
        while True:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=5).status_code == 200:
                    break
            if started.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(log.read_text())
            time.sleep(0.2)
        yield psutil.Process(started.pid)
    finally:
        started.terminate()
        started.wait()


@contextlib.contextmanager
def pool(work: Path) -> Iterator[tuple[psutil.Process, int]]:
    """Our process and its port."""
    port = free_port()
    command = [sys.executable, "-m", "dreambooth_server", "--pool", "--base", f"file://{BASE}", "--max-rank", "16"]
    command += ["--port", str(port), "--host", "127.0.0.1", "--drain-seconds", "0", "--patience-seconds", "600"]
    with process(command, port, work / "pool.log", DREAMBOOTH_WORK_DIR=str(work / "pool")) as running:
        yield running, port


def ours(client: httpx.AsyncClient, port: int, folder: Path, digests: dict[str, str]) -> Draw:
    """One picture of a subject, by its index."""
    names = list(digests)

    async def draw(index: int, seed: int, steps: int = STEPS) -> None:
        name = names[index]
        headers = {"dreambooth-model": name, "dreambooth-digest": digests[name]}
        headers["dreambooth-artifact"] = f"file://{folder / name}"
        body = {"prompt": PROMPT, "seed": seed, "steps": steps, "guidance_scale": GUIDANCE}
        url = f"http://127.0.0.1:{port}/v1/images/generations"
        (await client.post(url, json=body, headers=headers)).raise_for_status()

    return draw


def theirs(client: httpx.AsyncClient, port: int, names: list[str]) -> Draw:
    """The same of the plain server."""

    async def draw(index: int, seed: int) -> None:
        body = {"subject": names[index], "prompt": PROMPT, "seed": seed, "steps": STEPS, "guidance_scale": GUIDANCE}
        (await client.post(f"http://127.0.0.1:{port}/draw", json=body)).raise_for_status()

    return draw


async def closed_loop(
    draw: Draw, server: psutil.Process, clients: int, subjects: int, seconds: float
) -> dict[str, Any]:
    """Each client asks again as soon as it is answered. The processor's time holds on a machine that is shared."""
    pick, took, end = random.Random(clients), list[float](), time.monotonic() + seconds

    async def client() -> None:
        while time.monotonic() < end:
            begun = time.perf_counter()
            await draw(pick.randrange(subjects), pick.randrange(2**31))
            took.append(time.perf_counter() - begun)

    begun, before = time.monotonic(), sum(server.cpu_times()[:2])
    await asyncio.gather(*(client() for _ in range(clients)))
    used = (sum(server.cpu_times()[:2]) - before) / len(took)
    rate = len(took) / (time.monotonic() - begun)
    return {
        "pictures_per_second": round(rate, 2),
        "processor_ms_per_picture": round(used * 1e3),
        "ms": percentiles(took),
    }


async def open_loop(draw: Draw, rate: float, subjects: int, seconds: float) -> dict[str, Any]:
    """Requests at random times, `rate` a second on average, whether earlier ones are answered or not."""
    pick, took, asking = random.Random(5), list[float](), list[asyncio.Task[None]]()

    async def ask() -> None:
        begun = time.perf_counter()
        await draw(pick.randrange(subjects), pick.randrange(2**31))
        took.append(time.perf_counter() - begun)

    end = time.monotonic() + seconds
    while time.monotonic() < end:
        asking.append(asyncio.ensure_future(ask()))
        await asyncio.sleep(pick.expovariate(rate))
    await asyncio.gather(*asking)
    return {"requests_per_second": round(rate, 2), "ms": percentiles(took)}


async def measure(draw: Draw, server: psutil.Process, subjects: int, seconds: float) -> dict[str, Any]:
    """Throughput by clients, then latency at half of the most."""
    for index in range(subjects):
        await draw(index, 0)
    found: dict[str, Any] = {str(n): await closed_loop(draw, server, n, subjects, seconds) for n in CLIENTS}
    most = max(each["pictures_per_second"] for each in found.values())
    return {"clients": found, "half_load": await open_loop(draw, most / 2, subjects, 1.5 * seconds)}


async def thousand(client: httpx.AsyncClient, pool_: psutil.Process, port: int, work: Path, count: int) -> Any:
    """Registered, listed, and each of them drawn once, in random order."""
    digests, folder = make_subjects(work / "many", count), work / "many"
    url, before = f"http://127.0.0.1:{port}", pool_.memory_info().rss
    bodies = [{"name": n, "uri": f"file://{folder / n}", "digest": d} for n, d in digests.items()]
    begun = time.monotonic()
    waiting = bodies
    while waiting:
        states = [(await client.post(f"{url}/adapters", json=body)).json()["phase"] for body in waiting]
        assert "Failed" not in states
        waiting = [body for body, state in zip(waiting, states, strict=True) if state != "Ready"]
    registered, after = time.monotonic() - begun, pool_.memory_info().rss
    begun = time.monotonic()
    listed = (await client.get(f"{url}/v1/models")).json()["data"]
    listing = time.monotonic() - begun
    draw, order = ours(client, port, folder, digests), random.Random(1).sample(range(count), count)
    failures, walk = 0, iter(order)

    async def walker() -> None:
        nonlocal failures
        for index in walk:
            try:
                await draw(index, index, 2)  # type: ignore[call-arg]
            except httpx.HTTPError:
                failures += 1

    begun = time.monotonic()
    await asyncio.gather(*(walker() for _ in range(8)))
    return {
        "subjects": count, "listed": len(listed), "seconds_until_all_are_ready": round(registered, 1),
        "memory_mib": {"before": before >> 20, "after": after >> 20, "walked": pool_.memory_info().rss >> 20},
        "seconds_to_list": round(listing, 3), "failures": failures,
        "walk_seconds": round(time.monotonic() - begun, 1),
    }  # fmt: skip


def parts(work: Path, digests: dict[str, str]) -> dict[str, Any]:
    """Swaps and single steps, in a process of their own."""
    for name, digest in digests.items():
        (work / "subjects" / name / "digest").write_text(json.dumps(digest))
    with store(work, work / "subjects") as keys:
        command = [sys.executable, str(ROOT / "benchmarks/timed/engine.py"), str(BASE), str(work / "subjects")]
        command += ["s3://models", str(keys), str(work / "swaps")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def compiled() -> dict[str, Any]:
    """A process that compiles, and one that finds its programs."""
    with tempfile.TemporaryDirectory() as programs:
        command = [sys.executable, str(ROOT / "benchmarks/timed/engine.py"), "--compile", str(BASE), programs]
        found = {}
        for start in ("nothing kept", "programs kept"):
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[start] = json.loads(done.stdout.strip().splitlines()[-1])
        size = sum(path.stat().st_size for path in Path(programs).rglob("*") if path.is_file())
    return {**found, "programs_mib": round(size / 2**20, 1)}


async def side_by_side(work: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Both servers, one after the other, and the thousand."""
    digests = make_subjects(work / "subjects", options.subjects)
    limits = httpx.Limits(max_connections=64)
    found: dict[str, Any] = {"subjects": options.subjects, "steps": STEPS, "rank": RANK}
    async with httpx.AsyncClient(timeout=300, limits=limits) as client:
        port = free_port()
        command = [sys.executable, str(ROOT / "benchmarks/timed/plain_server.py"), str(BASE)]
        with process([*command, str(work / "subjects"), str(port)], port, work / "plain.log") as running:
            draw = theirs(client, port, list(digests))
            found["diffusers"] = await measure(draw, running, len(digests), options.seconds)
        with pool(work) as (running, port):
            draw = ours(client, port, work / "subjects", digests)
            found["ours"] = await measure(draw, running, len(digests), options.seconds)
            rate = found["diffusers"]["half_load"]["requests_per_second"]
            found["ours"]["load_of_diffusers"] = await open_loop(draw, rate, len(digests), 1.5 * options.seconds)
            found["many"] = await thousand(client, running, port, work, options.many)
    return {**found, **parts(work, digests)}


def goals(found: dict[str, Any]) -> dict[str, Any]:
    """The issue's goals that need no GPU and no cluster."""
    mine, plain = found["ours"], found["diffusers"]
    speed = [each["clients"]["8"]["pictures_per_second"] for each in (mine, plain)]
    spent = [each["clients"]["8"]["processor_ms_per_picture"] for each in (plain, mine)]
    idle, late = mine["clients"]["1"]["ms"]["p95"], plain["half_load"]["ms"]["p95"]
    flat = mine["half_load"]["ms"]["p95"] / idle
    same = mine["load_of_diffusers"]["ms"]["p95"]
    rows = {
        "times the pictures per second of diffusers, 8 clients": (round(speed[0] / speed[1], 2), 2, ">="),
        "times the pictures per processor second, 8 clients": (round(spent[0] / spent[1], 2), 2, ">="),
        "p95 at half load, in p95 of an idle server": (round(flat, 2), 1.2, "<="),
        "p95 at half the load that diffusers can take, in p95 of an idle server": (round(same / idle, 2), 1.2, "<="),
        "the same, as a share of diffusers'": (round(same / late, 2), 1, "<="),
        "warm swap p95, ms": (found["swap_ms"]["warm"]["p95"], 20, "<="),
        "swap from the store p95, ms": (found["swap_ms"]["store"]["p95"], 2000, "<="),
        "failures in a walk over all subjects": (found["many"]["failures"], 0, "<="),
    }
    return {
        name: {"value": value, "goal": goal, "met": value >= goal if sign == ">=" else value <= goal}
        for name, (value, goal, sign) in rows.items()
    }


def plot(found: dict[str, Any], path: str) -> None:
    """Pictures per second by clients."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.2), layout="constrained")
    for shift, (side, label, colour) in enumerate(
        (("diffusers", "plain diffusers", "#999"), ("ours", "a pool", "#2563eb"))
    ):
        values = [found[side]["clients"][str(n)]["pictures_per_second"] for n in CLIENTS]
        bars = axes.bar([at + 0.4 * shift for at in range(len(CLIENTS))], values, 0.4, label=label, color=colour)
        axes.bar_label(bars, fmt="%.1f")
    axes.set_xticks([at + 0.2 for at in range(len(CLIENTS))], [str(n) for n in CLIENTS])
    axes.set(xlabel="clients", ylabel="pictures per second", title=f"{found['subjects']} subjects on one base")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Print the figures, the machine and the goals."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subjects", type=int, default=50)
    parser.add_argument("--many", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=15, help="of each measurement")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--plot", default="")
    parser.add_argument("--compile", action="store_true", help="measure compiled programs, and nothing else")
    options = parser.parse_args()
    if options.compile:
        found = compiled()
    else:
        with tempfile.TemporaryDirectory() as folder:
            found = asyncio.run(side_by_side(Path(folder), options))
    load = [round(each, 2) for each in os.getloadavg()]
    report = {**found, "machine": {**machine(1), "load_average": load}}
    if not options.compile:
        report["goals"] = goals(found)
    tell(report, options.out)
    if options.plot:
        plot(report, options.plot)


if __name__ == "__main__":
    main()
