"""What does a kept base save a replica that starts? python benchmarks/kept_base.py [--times 5] [--big] [--base-only]

A pool's replica is started again and again on a base in MinIO on this machine, until it is ready: with an empty cache;
with the cache that an earlier replica left; with that, and nothing remembered of its files' hashes; and with that, and
none of it in the node's page cache. The base is `examples/base`, with `--big` one of random weights in the same layout,
1.6 GB. With `--base-only` a process does no more than have the base, verified. Seconds, medians; one JSON object;
progress goes to stderr.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families
from timed.report import tell
from timed.store import store, unused_port
from training import machine

ROOT = Path(__file__).parents[1]
LIMIT = 300.0
HAVE = """
import time
from dreambooth_server.bases import open_base
from dreambooth_server.settings import Places
began, used = time.monotonic(), time.process_time()
open_base("s3://models/base", None, Places())
print(time.monotonic() - began, time.process_time() - used)
"""
WIDTHS = (640, 1280)


def make_big(folder: Path) -> None:
    """The example base with a wider U-Net, of random weights in fp32, in the place of its own."""
    import torch
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    config = {**UNet2DConditionModel.load_config(str(folder / "unet")), "block_out_channels": WIDTHS}
    shutil.rmtree(folder / "unet")
    unet: Any = UNet2DConditionModel.from_config(config)
    unet.save_pretrained(str(folder / "unet"))


def emptied(cache: Path) -> None:
    """As on a node that never had the base."""
    shutil.rmtree(cache)
    cache.mkdir()


def unremembered(cache: Path) -> None:
    """The hashes of the files are not known any more."""
    for path in cache.glob("bases/*/.record"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "hashes": {}}))


def cold_pages(cache: Path) -> None:
    """The node has the files on its disk alone."""
    for path in (path for path in cache.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def start(keys: Path, cache: Path, log: Path) -> dict[str, float]:
    """Seconds from the process's beginning until it is ready, and of each stage. Raises TimeoutError."""
    port = unused_port()
    command = [sys.executable, "-m", "dreambooth_server", "--pool", "--base", "s3://models/base", "--max-rank", "4"]
    env = {**os.environ, "DREAMBOOTH_STORE_DIR": str(keys), "DREAMBOOTH_CACHE_DIR": str(cache)}
    began = time.monotonic()
    with log.open("ab") as out:
        replica = subprocess.Popen([*command, "--port", str(port)], env=env, stdout=out, stderr=out)
    try:
        while time.monotonic() - began < LIMIT and replica.poll() is None:
            if ready(f"http://127.0.0.1:{port}/readyz"):
                seconds = time.monotonic() - began
                found = {"ready": seconds, **stages(httpx.get(f"http://127.0.0.1:{port}/metrics").text)}
                return {**found, "processor": processor_seconds(replica.pid)}
            time.sleep(0.1)
    finally:
        replica.kill()
        replica.wait()
    raise TimeoutError(f"not ready:\n{log.read_text()[-2000:]}")


def processor_seconds(pid: int) -> float:
    """What a process has used of the processors: on a machine that others use, too, this is what compares."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def have(keys: Path, cache: Path, log: Path) -> dict[str, float]:
    """Seconds until a new process has the base, and what it used of the processors."""
    env = {**os.environ, "DREAMBOOTH_STORE_DIR": str(keys), "DREAMBOOTH_CACHE_DIR": str(cache)}
    with log.open("ab") as out:
        said = subprocess.run([sys.executable, "-c", HAVE], env=env, stdout=subprocess.PIPE, stderr=out, check=True)
    seconds, processor = map(float, said.stdout.split())
    return {"ready": seconds, "processor": processor}


def ready(url: str) -> bool:
    """Whether the replica says that it is."""
    try:
        return httpx.get(url, timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def stages(text: str) -> dict[str, float]:
    """`dreambooth_start_duration_seconds` by stage."""
    samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
    return {s.labels["stage"]: s.value for s in samples if s.name == "dreambooth_start_duration_seconds"}


def measure(
    begin: Callable[[Path, Path, Path], dict[str, float]], base: Path, work: Path, times: int
) -> dict[str, Any]:
    """All four, in turns."""
    ways: dict[str, tuple[Callable[[Path], None], ...]] = {
        "empty cache": (emptied,),
        "kept": (),
        "kept, hashes not remembered": (unremembered,),
        "kept, pages not cached": (cold_pages,),
    }
    cache, runs = work / "cache", {way: [] for way in ways}  # type: dict[str, list[dict[str, float]]]
    cache.mkdir()
    with store(work, base.parent) as keys:
        for turn in range(times):
            for way, prepare in ways.items():
                for step in prepare:
                    step(cache)
                runs[way].append(begin(keys, cache, work / "log"))
                print(f"{turn}: {way}: {runs[way][-1]['ready']:.2f} s", file=sys.stderr, flush=True)
    return {way: {stage: round(median(run[stage] for run in runs[way]), 2) for stage in runs[way][0]} for way in ways}


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=5, help="starts of each kind")
    parser.add_argument("--big", action="store_true", help="a base of 1.6 GB")
    parser.add_argument("--base-only", action="store_true", help="start no replicas")
    parser.add_argument("--work", type=Path, help="where files are for the time, on the disk that counts")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        work = Path(folder)
        base = Path(shutil.copytree(ROOT / "examples/base", work / "models/base"))
        if options.big:
            make_big(base)
        size = sum(path.stat().st_size for path in base.rglob("*") if path.is_file())
        found = measure(have if options.base_only else start, base, work, options.times)
    report = {"base bytes": size, "times": options.times, **found, "machine": machine(1)}
    tell(report, options.out)


if __name__ == "__main__":
    main()
