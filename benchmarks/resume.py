"""Can a kill spoil a training? python benchmarks/resume.py [--kills 100] [--write]

A small training is killed with SIGKILL at random moments, uploads included, and started again, 100 times, on a real S3
server (versitygw, on this machine). Every time, weights, optimizer and average as they are after the resume are
compared by hash with those of a training that nobody disturbed. Then it is measured how long training waits for
checkpoints. One JSON object; `--write` keeps it as benchmarks/results/resume.json.

The base is the example's in shape with random weights and half its width: what is tested is no number's quality.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from timed.report import host, tell

from dreambooth_api.job import Checkpoints as Checkpoint
from dreambooth_api.parse import parse_job_file
from dreambooth_api.reasons import Phase
from dreambooth_trainer import loop
from dreambooth_trainer.checkpoint import Checkpoints
from dreambooth_trainer.context import Context, Tracking, laptop_context
from dreambooth_trainer.prepare import prepare
from dreambooth_trainer.progress import Board, Console
from dreambooth_trainer.session import Session
from dreambooth_trainer.store import S3Store, s3_store
from dreambooth_trainer.tracking import NullTracker

ROOT = Path(__file__).parents[1]
KEY, SECRET, BUCKET = "resume-access", "resume-secret-key", "resume"
STEPS, EVERY = 400, 4
# A life lasts up to so long after its first step, seconds.
LIFE = 1.0
STALL_GOAL, SAVES = 0.01, 6


def tiny_base(folder: Path) -> None:
    """The example base's shape with random weights of half the width."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    example = ROOT / "examples" / "base"
    ignore = shutil.ignore_patterns("*.safetensors")
    shutil.copytree(example, folder, ignore=ignore)
    torch.manual_seed(0)

    def config(part: str) -> dict[str, Any]:
        return json.loads((example / part / "config.json").read_text())

    unet = config("unet") | {"block_out_channels": [32, 32], "norm_num_groups": 8, "cross_attention_dim": 32}
    UNet2DConditionModel.from_config(unet).save_pretrained(folder / "unet")
    vae = config("vae") | {"block_out_channels": [8, 8, 8]}
    AutoencoderKL.from_config(vae).save_pretrained(folder / "vae")
    text = config("text_encoder") | {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
    CLIPTextModel(CLIPTextConfig(**text)).save_pretrained(folder / "text_encoder")


def job(name: str, **training: Any) -> dict:
    """A job with all that has state: average, accumulation, both models, a schedule."""
    return {
        "apiVersion": "dreambooth.dev/v1alpha1",
        "kind": "DreamBoothJob",
        "metadata": {"name": name, "annotations": {"dreambooth.dev/local-mirror": "s3://resume/mirror=mirror"}},
        "spec": {
            "baseModel": {"uri": "s3://resume/mirror/base"},
            "subject": {"images": {"uri": "s3://resume/mirror/images"}, "className": "robot"},
            "prior": {"images": 4, "steps": 1, "guidanceScale": 1.0},
            "method": {"type": "Full"},
            "training": {
                "steps": STEPS,
                "batchSize": 1,
                "gradientAccumulation": 2,
                "learningRate": 1e-3,
                "lrScheduler": "cosine",
                "ema": 0.99,
                "flip": True,
                **training,
            },
            "checkpoints": {"everySteps": EVERY, "keep": 2},
            "validation": {"images": 1, "steps": 1},
            "topology": {"gpusPerNode": 0},
            "publish": {"name": "resume"},
        },
    }


def context(folder: Path, body: dict, port: int | None = None) -> Context:
    """The job on this machine, its store on the server at `port`, or in a folder."""
    ctx = laptop_context(parse_job_file(body), body["metadata"], folder / "job.yaml", folder / "out", terminal=False)
    ctx = replace(ctx, tracking=Tracking(), uid=body["metadata"]["name"])
    return ctx if port is None else replace(ctx, store=bucket(port))


def bucket(port: int) -> S3Store:
    """The bucket of the server at `port`."""
    return s3_store(f"http://127.0.0.1:{port}", BUCKET, KEY, SECRET, region="us-east-1", patience=30)


def server(folder: Path) -> tuple[subprocess.Popen, int]:
    """versitygw, as `make up` has built it, with an empty bucket."""
    cache = Path(os.environ.get("DREAMBOOTH_CACHE", Path.home() / ".cache" / "dreambooth")) / "bin"
    (folder / BUCKET).mkdir(parents=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [cache / "versitygw", "--port", f"127.0.0.1:{port}", "--access", KEY, "--secret", SECRET, "posix", folder]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    bucket(port).keys()
    return process, port


def digest(session: Session) -> str:
    """Of weights, optimizer and average, by name and bytes."""
    state, found = session.state([]), hashlib.sha256()

    def take(path: str, value: Any) -> None:
        if isinstance(value, torch.Tensor):
            found.update(path.encode() + value.detach().contiguous().numpy().tobytes())
        elif isinstance(value, dict):
            for key, inner in value.items():
                take(f"{path}.{key}", inner)

    for part in ("weights", "optimizer", "ema"):
        take(part, getattr(state, part))
    return found.hexdigest()


def watched(log: Path, every: bool) -> Callable[[Session], Any]:
    """`loop.take_step`, which writes down the state's hash before the first step (or each), and each step done."""
    real, first = loop.take_step, [True]

    def step(session: Session) -> Any:
        if first[0] or every:
            first[0] = False
            write(log, f"at {session.step} {digest(session)}")
        traces = real(session)
        write(log, f"done {session.step}")
        return traces

    return step


def write(log: Path, line: str) -> None:
    """A line that a kill does not tear."""
    with log.open("a") as file:
        os.write(file.fileno(), f"{line}\n".encode())


def life(folder: Path, body: dict, port: int, log: Path, every: bool = False) -> None:
    """One process's part: train until the end, or until somebody kills it."""
    torch.set_num_threads(1)
    loop.take_step = watched(log, every)
    ctx = context(folder, body, port)
    loop.train(ctx, loop.Desk(Board(ctx, Phase.TRAINING), Console(silent=True), NullTracker()))
    write(log, f"ended {final(ctx)}")


def final(ctx: Context) -> str:
    """Hash over the files of the last checkpoint."""
    checkpoints = Checkpoints(ctx, print)
    store = checkpoints.at(checkpoints.committed()[-1])
    files = [name for name in store.keys() if name.endswith(".safetensors")]  # noqa: SIM118 a Store is no dict
    return hashlib.sha256(b"".join(store.read(name) for name in files)).hexdigest()


class Torture:
    """The same training again and again, killed until there were enough kills."""

    def __init__(self, folder: Path, port: int, kills: int, seed: int) -> None:
        self.folder, self.port, self.kills, self.random = folder, port, kills, random.Random(seed)
        self.processes = multiprocessing.get_context("forkserver")
        self.processes.set_forkserver_preload(["dreambooth_trainer.loop", "diffusers", "transformers", "minio"])
        self.reference: dict[int, str] = {}
        self.reference_end = ""
        self.killed = self.equal = self.unusable = self.uploading = self.runs = self.equal_ends = 0
        self.lost: list[int] = []

    def straight(self) -> None:
        """The undisturbed training: the hash before every step, and of the end."""
        log = self.folder / "straight.log"
        self._prepare(body := job("straight"))
        process = self._start(body, log, every=True)
        process.join()
        lines = [line.split() for line in log.read_text().splitlines()]
        self.reference = {int(line[1]): line[2] for line in lines if line[0] == "at"}
        self.reference_end = lines[-1][1]

    def run(self) -> None:
        """One training through its kills to its end."""
        self.runs += 1
        self._prepare(body := job(f"killed-{self.runs}"))
        log = self.folder / f"killed-{self.runs}.log"
        log.touch()
        while True:
            before = log.read_text().splitlines()
            process = self._start(body, log)
            begun = self._await_first_step(process, log, len(before))
            if not begun:
                self._end_of_life(log, before)
                return
            self._compare(log.read_text().splitlines()[len(before)], before)
            if self.killed < self.kills:
                process.join(self.random.uniform(0, LIFE))
            else:
                process.join()
            if not process.is_alive():
                process.join()
                self._end_of_life(log, before)
                return
            os.kill(process.pid or 0, signal.SIGKILL)
            process.join()
            self.killed += 1
            self.uploading += self._was_uploading(body)

    def _compare(self, line: str, before: list[str]) -> None:
        """The resumed state against the undisturbed one's of that step; how many steps are to be done again."""
        _, step, found = line.split()
        done = [int(old.split()[1]) for old in before if old.startswith("done")]
        if done:
            self.lost.append(done[-1] - int(step))
            self.equal += self.reference[int(step)] == found

    def _end_of_life(self, log: Path, before: list[str]) -> None:
        lines = log.read_text().splitlines()
        if len(lines) == len(before) or not lines[-1].startswith("ended"):
            self.unusable += 1
        else:
            self.equal_ends += lines[-1].split()[1] == self.reference_end

    def _was_uploading(self, body: dict) -> bool:
        """Whether the kill left a checkpoint's folder without its manifest."""
        keys = context(self.folder, body, self.port).checkpoints.keys()
        steps = {key.split("/")[0] for key in keys}
        return any(f"{step}/MANIFEST.json" not in keys for step in steps)

    def _await_first_step(self, process: Any, log: Path, known: int) -> bool:
        while process.is_alive() and len(log.read_text().splitlines()) <= known:
            time.sleep(0.005)
        lines = log.read_text().splitlines()
        return len(lines) > known and lines[known].startswith("at")

    def _start(self, body: dict, log: Path, every: bool = False) -> Any:
        process = self.processes.Process(target=life, args=(self.folder, body, self.port, log, every))
        process.start()
        return process

    def _prepare(self, body: dict) -> None:
        ctx = context(self.folder, body, self.port)
        prepare(ctx, Board(ctx, Phase.PREPARING), Console(silent=True))

    def figures(self) -> dict[str, Any]:
        """What came of it."""
        return {
            "kills": self.killed,
            "kills during an upload": self.uploading,
            "unusable resumes": self.unusable,
            "resumed states compared": len(self.lost),
            "resumed states equal": self.equal,
            "trainings finished": self.runs,
            "final weights equal": self.equal_ends,
            "steps between checkpoints": EVERY,
            "steps lost per kill": {
                "mean": round(statistics.mean(self.lost), 2),
                "median": statistics.median(self.lost),
                "worst": max(self.lost),
            },
        }


def stalls(folder: Path) -> dict[str, Any]:
    """Seconds that training waits for a checkpoint, beside those of a step: Full on the example base."""
    (folder / "stall").mkdir()
    (folder / "stall" / "mirror").symlink_to(folder / "stall-mirror")
    body = job("stall", steps=SAVES * 10, batchSize=4, gradientAccumulation=1)
    body["spec"]["checkpoints"]["everySteps"] = 10
    ctx = context(folder / "stall", body)
    prepare(ctx, Board(ctx, Phase.PREPARING), Console(silent=True))
    seconds, waits, real = [], [], loop.take_step
    board = Board(ctx, Phase.TRAINING)
    board.stalled = waits.append  # type: ignore[method-assign]

    def timed(session: Session) -> Any:
        began = time.perf_counter()
        traces = real(session)
        seconds.append(time.perf_counter() - began)
        return traces

    loop.take_step = timed
    try:
        loop.train(ctx, loop.Desk(board, Console(silent=True), NullTracker()))
    finally:
        loop.take_step = real
    step = statistics.median(seconds[1:])
    # The first save makes the memory that the others use again.
    wait = statistics.median(waits[2:])
    every = Checkpoint().every_steps
    return {
        "median step, seconds": round(step, 4),
        "median wait for a checkpoint, seconds": round(wait, 5),
        "first two waits, seconds": [round(w, 5) for w in waits[:2]],
        "wait, share of one step": round(wait / step, 5),
        f"wait, share of training at a checkpoint every {every} steps (default)": round(wait / step / every, 7),
        "bytes": sum(file.stat().st_size for file in (folder / "stall").rglob("step-*/*.safetensors")) // 2,
    }


def main() -> None:
    """Print the figures, the machine and the goals."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="keep the result in benchmarks/results/")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="dreambooth-resume-"))
    torch.set_num_threads(1)
    tiny_base(folder / "mirror" / "base")
    shutil.copytree(ROOT / "examples" / "robot" / "images", folder / "mirror" / "images")
    (folder / "stall-mirror").mkdir()
    (folder / "stall-mirror" / "base").symlink_to(ROOT / "examples" / "base")
    (folder / "stall-mirror" / "images").symlink_to(folder / "mirror" / "images")
    process, port = server(folder / "s3")
    try:
        torture = Torture(folder, port, args.kills, args.seed)
        torture.straight()
        while torture.killed < args.kills:
            torture.run()
            print(f"{torture.killed} kills, {torture.equal} equal", file=sys.stderr, flush=True)
    finally:
        process.terminate()
        process.wait()
    kills, stall = torture.figures(), stalls(folder)
    shutil.rmtree(folder)
    goals = {
        "unusable resumes": {"value": torture.unusable, "goal": 0, "met": torture.unusable == 0},
        "equal hashes per resume": {
            "value": torture.equal / len(torture.lost),
            "goal": 1,
            "met": torture.equal == len(torture.lost) and torture.equal_ends == torture.runs,
        },
        "wait for a checkpoint / step": {
            "value": stall["wait, share of one step"],
            "goal": STALL_GOAL,
            "met": stall["wait, share of one step"] < STALL_GOAL,
        },
    }
    result = {"store": "versitygw (S3) on loopback", "resume": kills, "checkpoint": stall}
    report = {**result, "machine": host(torch=torch.__version__), "goals": goals}
    tell(report, ROOT / "benchmarks/results/resume.json" if args.write else None)


if __name__ == "__main__":
    main()
