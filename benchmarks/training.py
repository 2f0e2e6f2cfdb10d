"""Steps per second and start-up of this trainer and of diffusers' own example scripts, side by side.

python benchmarks/training.py --scripts DIR [--rounds 3] [--steps 60] [--out FILE]

DIR holds `train_dreambooth.py` and `train_dreambooth_lora.py` of huggingface/diffusers (folder `examples/dreambooth`),
which are no part of this repository, and in DIR/site torchvision, which only they need. Without them the program says
how to get them and ends with 2. Both sides get the same base (`examples/base`), pictures, class images (drawn before),
batch, optimizer, number format and threads. A round runs both, one after the other, once per case; the figures are
medians over rounds, of the mean pace after the first steps. The scripts compute their captions' states once
(`--pre_compute_text_embeddings`) wherever they can. Neither side tracks or saves anything while it is timed.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CACHE = Path(os.environ.get("DREAMBOOTH_CACHE", Path.home() / ".cache/dreambooth")) / "diffusers-examples"
SCRIPTS = {"Full": "train_dreambooth.py", "LoRA": "train_dreambooth_lora.py"}
# The first steps make buffers and fill caches.
WARM = 10
BATCH, RANK, RATE, CLASS_IMAGES, RESOLUTION = 2, 16, 1e-4, 16, 32
SUBJECT, CLASS = "a photo of sks robot", "a photo of a robot"
GOAL_PACE, GOAL_START = 2.0, 0.5


@dataclass(frozen=True)
class Case:
    """What is trained."""

    method: str
    text_encoder: bool
    prior: bool

    @property
    def name(self) -> str:
        """For people and as a key."""
        text = "U-Net and text encoder" if self.text_encoder else "U-Net"
        return f"{self.method}, {text}, {'with' if self.prior else 'without'} prior"

    def job(self, steps: int) -> dict[str, Any]:
        """As a DreamBoothJob."""
        return {
            "apiVersion": "dreambooth.dev/v1alpha1",
            "kind": "DreamBoothJob",
            "metadata": {
                "name": "bench",
                "annotations": {"dreambooth.dev/local-mirror": f"s3://dreambooth/examples={ROOT / 'examples'}"},
            },
            "spec": {
                "baseModel": {"uri": "s3://dreambooth/examples/base"},
                "subject": {
                    "images": {"uri": "s3://dreambooth/examples/robot/images"},
                    "identifier": "sks",
                    "className": "robot",
                },
                "prior": {"weight": float(self.prior), "images": CLASS_IMAGES, "steps": 10, "guidanceScale": 4.0},
                "method": {
                    "type": self.method,
                    "trainTextEncoder": self.text_encoder,
                    "lora": {"rank": RANK, "alpha": RANK, "targets": ["to_q", "to_k", "to_v", "to_out.0"]},
                },
                "training": {
                    "steps": steps + WARM + 1,
                    "batchSize": BATCH,
                    "learningRate": RATE,
                    "precision": "fp32",
                    "lrScheduler": "constant",
                    "warmupSteps": 0,
                    "flip": False,
                },
                "checkpoints": {"everySteps": 100_000},
                "topology": {"gpusPerNode": 0},
                "publish": {"name": "bench"},
            },
        }

    def arguments(self, work: Path, steps: int) -> list[str]:
        """As arguments of a script of diffusers."""
        given: dict[str, object] = {
            "pretrained_model_name_or_path": ROOT / "examples/base",
            "instance_data_dir": ROOT / "examples/robot/images",
            "instance_prompt": SUBJECT,
            "output_dir": work / "theirs",
            "resolution": RESOLUTION,
            "train_batch_size": BATCH,
            "learning_rate": RATE,
            "lr_scheduler": "constant",
            "lr_warmup_steps": 0,
            "max_train_steps": steps + WARM + 1,
            "checkpointing_steps": 100_000,
            "mixed_precision": "no",
            "seed": 0,
        }
        if self.method == "LoRA":
            given["rank"] = RANK
        if self.prior:
            given |= {"class_data_dir": work / "class", "class_prompt": CLASS, "num_class_images": CLASS_IMAGES}
        flags = ["--train_text_encoder" if self.text_encoder else "--pre_compute_text_embeddings"]
        if self.prior:
            flags.append("--with_prior_preservation")
        return [f"--{name}={value}" for name, value in given.items()] + flags


@dataclass(frozen=True)
class Lap:
    """One process: pace, seconds from its start to the end of its first step, peak resident memory."""

    steps_per_second: float
    start_seconds: float
    peak_mib: float


def timed_child(mode: str, steps: int, out: Path, rest: list[str]) -> None:
    """Run one side in this process, note the time after each optimizer step, and end it after the last one."""
    import resource

    stamps: list[float] = []

    def stepped(*_: object) -> None:
        stamps.append(time.time())
        if len(stamps) == steps + WARM:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            out.write_text(json.dumps({"stamps": stamps, "peak_mib": peak}))
            os._exit(0)

    def watch() -> None:
        from torch.optim.optimizer import register_optimizer_step_post_hook

        register_optimizer_step_post_hook(stepped)

    if mode == "ours":
        ours(rest, watch)
    else:
        theirs(rest, watch)


def ours(rest: list[str], watch: Any) -> None:
    """`dreambooth run` without MLflow: prepare and train in one process."""
    from dataclasses import replace

    from dreambooth_trainer.context import Tracking, laptop_context
    from dreambooth_trainer.process import settle_libraries
    from dreambooth_trainer.run import read_job, run

    settle_libraries()
    job_file, folder, action = Path(rest[0]), Path(rest[1]), rest[2]
    job, metadata = read_job(job_file)
    ctx = replace(laptop_context(job, metadata, job_file, folder, terminal=False), tracking=Tracking())
    if action == "prepare":
        from dreambooth_trainer.process import prepare_process

        prepare_process(ctx)
        return
    watch()
    run(ctx, folder)


def theirs(rest: list[str], watch: Any) -> None:
    """A script as it stands. No tracker is started, as none is on the other side."""
    import runpy

    import accelerate.accelerator

    accelerate.accelerator.filter_trackers = lambda *_args, **_kwargs: []
    watch()
    sys.argv = rest
    runpy.run_path(rest[0], run_name="__main__")


def child(mode: str, steps: int, work: Path, rest: list[str], scripts: Path, threads: int) -> Lap | None:
    """Run one side in a process of its own."""
    out = work / "stamps.json"
    out.unlink(missing_ok=True)
    path = os.pathsep.join([str(scripts / "site")] if mode == "theirs" else [])
    env = {**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"}
    env |= {"PYTHONPATH": path}
    command = [sys.executable, __file__, "--child", mode, str(steps), str(out), *rest]
    began = time.time()
    done = subprocess.run(command, env=env, capture_output=True, text=True, cwd=work)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}")
    if not out.exists():
        return None
    found = json.loads(out.read_text())
    stamps = found["stamps"]
    pace = (len(stamps) - WARM) / (stamps[-1] - stamps[WARM - 1])
    return Lap(pace, stamps[0] - began, found["peak_mib"])


def class_images(work: Path, scripts: Path, threads: int) -> None:
    """Draw the class images once; both sides use the same ones."""
    job = work / "prepare.json"
    job.write_text(json.dumps(Case("LoRA", False, True).job(1)))
    child("ours", 1, work, [str(job), str(work / "drawn"), "prepare"], scripts, threads)
    (work / "class").mkdir()
    for picture in sorted((work / "drawn/store/priors").rglob("*.png")):
        (work / "class" / picture.name).write_bytes(picture.read_bytes())


def both(case: Case, number: int, work: Path, args: argparse.Namespace) -> tuple[Lap, Lap]:
    """One round of one case: ours in a folder that has only the class images, then theirs."""
    import shutil

    folder = work / f"ours-{number}-{case.name.replace(' ', '-')}"
    shutil.copytree(work / "drawn/store/priors", folder / "store/priors")
    job = folder / "job.json"
    job.write_text(json.dumps(case.job(args.steps)))
    mine = child("ours", args.steps, work, [str(job), str(folder), "run"], args.scripts, args.threads)
    shutil.rmtree(work / "theirs", ignore_errors=True)
    arguments = [str(args.scripts / SCRIPTS[case.method]), *case.arguments(work, args.steps)]
    other = child("theirs", args.steps, work, arguments, args.scripts, args.threads)
    assert mine
    assert other
    return mine, other


def figures(case: Case, laps: list[tuple[Lap, Lap]]) -> dict[str, Any]:
    """Medians over rounds."""
    sides: dict[str, Any] = {}
    pictures = BATCH * (2 if case.prior else 1)
    for side, name in enumerate(("ours", "diffusers")):
        own = [pair[side] for pair in laps]
        pace = statistics.median(lap.steps_per_second for lap in own)
        sides[name] = {
            "steps_per_second": round(pace, 2),
            "images_per_second": round(pace * pictures, 1),
            "start_seconds": round(statistics.median(lap.start_seconds for lap in own), 2),
            "peak_mib": round(statistics.median(lap.peak_mib for lap in own)),
        }
    mine, other = sides["ours"], sides["diffusers"]
    sides["times_faster"] = round(mine["steps_per_second"] / other["steps_per_second"], 2)
    sides["start_share"] = round(mine["start_seconds"] / other["start_seconds"], 2)
    return sides


def goals(cases: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Each case against both goals."""
    found = {}
    for name, sides in cases.items():
        times, share = sides["times_faster"], sides["start_share"]
        found[f"times faster: {name}"] = {"value": times, "goal": GOAL_PACE, "met": times >= GOAL_PACE}
        found[f"share of start-up: {name}"] = {"value": share, "goal": GOAL_START, "met": share <= GOAL_START}
    return found


def machine(threads: int) -> dict[str, Any]:
    """Where this was measured, and with what."""
    from importlib.metadata import version

    model = next((x for x in Path("/proc/cpuinfo").read_text().splitlines() if x.startswith("model name")), ": ?")
    return {
        "cpu": model.split(":")[1].strip(),
        "cores": os.cpu_count(),
        "threads": threads,
        "system": platform.system(),
        **{name: version(name) for name in ("torch", "diffusers", "transformers", "accelerate", "peft")},
    }


def check_scripts(folder: Path) -> None:
    """Whether the scripts are there; else say what to do."""
    lacking = [name for name in (*SCRIPTS.values(), "site/torchvision") if not (folder / name).exists()]
    if lacking:
        print(
            f"{folder} lacks {', '.join(lacking)}. Copy examples/dreambooth of huggingface/diffusers there, and say\n"
            f"uv pip install --python {sys.executable} --no-deps --target {folder}/site torchvision",
            file=sys.stderr,
        )
        raise SystemExit(2)


def main() -> None:
    """Print one JSON object."""
    if sys.argv[1:2] == ["--child"]:
        return timed_child(sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]), sys.argv[5:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scripts", type=Path, default=CACHE)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", default="", help="cases whose name has this in it")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    args.scripts = args.scripts.absolute()
    check_scripts(args.scripts)
    cases = [case for case in (Case(*x) for x in product(SCRIPTS, (False, True), (True, False))) if args.only in case.name]
    laps: dict[str, list[tuple[Lap, Lap]]] = {case.name: [] for case in cases}
    with tempfile.TemporaryDirectory() as folder:
        class_images(Path(folder), args.scripts, args.threads)
        for number, case in product(range(args.rounds), cases):
            laps[case.name].append(both(case, number, Path(folder), args))
            print(f"round {number + 1}: {case.name}: {laps[case.name][-1]}", file=sys.stderr, flush=True)
    measured = {case.name: figures(case, laps[case.name]) for case in cases}
    report = json.dumps({"cases": measured, "machine": machine(args.threads), "goals": goals(measured)}, indent=2)
    print(report)
    if args.out:
        args.out.write_text(report + "\n")


if __name__ == "__main__":
    main()
