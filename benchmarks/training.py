"""Steps per second and start-up of this trainer and of diffusers' own example scripts, side by side.

python benchmarks/training.py --scripts DIR [--rounds 3] [--steps 60] [--compile] [--out FILE]

DIR holds `train_dreambooth.py` and `train_dreambooth_lora.py` of huggingface/diffusers (folder `examples/dreambooth`),
which are no part of this repository, and in DIR/site torchvision, which only they need. Without them the program says
how to get them and ends with 2. Both sides get the same base (`examples/base`), pictures, class images (drawn before),
batch, optimizer and number format, and may use every core. This trainer chooses its number of threads itself; a script
runs once as it is and once with one thread, and the goals are held against the faster of the two, which is chosen case
by case. A round runs them one after the other, once per case; the figures are medians over rounds, of the mean pace
after the first steps. The scripts compute their captions' states once (`--pre_compute_text_embeddings`) wherever they
can. Nothing is tracked or saved while it is timed. OMP_WAIT_POLICY is PASSIVE everywhere: where cores are shared,
threads that spin make a step of either side many times slower.

With --compile this trainer also runs with `training.compile`: in the first round once where nothing is compiled yet,
and in every round with what that left behind, as a restart has it.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from timed.report import tell

ROOT = Path(__file__).resolve().parents[1]
CACHE = Path(os.environ.get("DREAMBOOTH_CACHE", Path.home() / ".cache/dreambooth")) / "diffusers-examples"
SCRIPTS = {"Full": "train_dreambooth.py", "LoRA": "train_dreambooth_lora.py"}
CHILD = ROOT / "benchmarks/timed/training.py"
# The first steps make buffers and fill caches.
WARM = 10
BATCH, RANK, RATE, CLASS_IMAGES, RESOLUTION = 2, 16, 1e-4, 16, 32
SUBJECT, CLASS = "a photo of sks robot", "a photo of a robot"
GOAL_PACE, GOAL_START = 2.0, 0.5
COMPILING, COMPILED = "ours, compiling", "ours, compiled before"


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

    @property
    def key(self) -> str:
        """The name as part of a path."""
        return self.name.replace(" ", "-")

    def job(self, steps: int, **training: object) -> dict[str, Any]:
        """As a DreamBoothJob, with further settings of its training."""
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
                    **training,
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
    """One process: pace, seconds from its start to the end of its first step, peaks of resident and of GPU memory.

    And the processor time of a step and of the start, which says more than the clock where others use the cores.
    """

    steps_per_second: float
    start_seconds: float
    peak_mib: float
    gpu_mib: float
    step_processor_ms: float
    start_processor_seconds: float


def child(
    mode: str,
    steps: int,
    work: Path,
    rest: list[str],
    scripts: Path,
    threads: int,
    more: dict[str, str] | None = None,
) -> Lap | None:
    """Run one side in a process of its own, with `more` in its environment."""
    out = work / "stamps.json"
    out.unlink(missing_ok=True)
    own = [os.environ["PYTHONPATH"]] if "PYTHONPATH" in os.environ else []
    path = os.pathsep.join([str(scripts / "site")] if mode == "theirs" else own)
    env = {**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"}
    env |= {"PYTHONPATH": path, **(more or {})}
    command = [sys.executable, str(CHILD), mode, str(steps + WARM), str(out), *rest]
    began = time.time()
    done = subprocess.run(command, env=env, capture_output=True, text=True, cwd=work)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}")
    if not out.exists():
        return None
    found = json.loads(out.read_text())
    stamps, used = found["stamps"], found["used"]
    count = len(stamps) - WARM
    pace = count / (stamps[-1] - stamps[WARM - 1])
    processor = 1000 * (used[-1] - used[WARM - 1]) / count
    return Lap(pace, stamps[0] - began, found["peak_mib"], found["gpu_mib"], processor, used[0])


def class_images(work: Path, scripts: Path, threads: int) -> None:
    """Draw the class images once; both sides use the same ones."""
    job = work / "prepare.json"
    job.write_text(json.dumps(Case("LoRA", False, True).job(1)))
    child("ours", 1, work, [str(job), str(work / "drawn"), "prepare"], scripts, threads)
    (work / "class").mkdir()
    for picture in sorted((work / "drawn/store/priors").rglob("*.png")):
        (work / "class" / picture.name).write_bytes(picture.read_bytes())


def our_lap(
    body: dict[str, Any], folder: Path, work: Path, args: argparse.Namespace, more: dict[str, str] | None = None
) -> Lap | None:
    """Ours, in `folder`, with `more` in its environment."""
    shutil.copytree(work / "drawn/store/priors", folder / "store/priors")
    job = folder / "job.json"
    job.write_text(json.dumps(body))
    return child("ours", args.steps, work, [str(job), str(folder), "run"], args.scripts, args.threads, more)


def lap_of_all(case: Case, number: int, work: Path, args: argparse.Namespace) -> dict[str, Lap]:
    """One round of one case: ours in folders that have only the class images, then the script, twice."""
    laps = {"ours": our_lap(case.job(args.steps), work / f"ours-{number}-{case.key}", work, args)}
    if args.compile:
        body, programs = case.job(args.steps, compile=True), work / f"programs-{case.key}"
        for name in (COMPILED,) if programs.exists() else (COMPILING, COMPILED):
            folder = work / f"{name.replace(' ', '-')}-{number}-{case.key}"
            laps[name] = our_lap(body, folder, work, args, {"TORCHINDUCTOR_CACHE_DIR": str(programs)})
    script = [str(args.scripts / SCRIPTS[case.method]), *case.arguments(work, args.steps)]
    for threads in sorted({1, args.threads}):
        shutil.rmtree(work / "theirs", ignore_errors=True)
        name = f"diffusers, {threads} thread{'s' if threads > 1 else ''}"
        laps[name] = child("theirs", args.steps, work, script, args.scripts, threads)
    return {name: lap for name, lap in laps.items() if lap}


def figures(case: Case, laps: list[dict[str, Lap]]) -> dict[str, Any]:
    """Medians over rounds, and ours against the faster way to run the script."""
    pictures = BATCH * (2 if case.prior else 1)
    sides: dict[str, Any] = {}
    for name in laps[0]:
        own = [lap[name] for lap in laps if name in lap]
        pace = statistics.median(lap.steps_per_second for lap in own)
        sides[name] = {
            "steps_per_second": round(pace, 2),
            "images_per_second": round(pace * pictures, 1),
            "start_seconds": round(statistics.median(lap.start_seconds for lap in own), 2),
            "peak_mib": round(statistics.median(lap.peak_mib for lap in own)),
            "step_processor_ms": round(statistics.median(lap.step_processor_ms for lap in own), 1),
            "start_processor_seconds": round(statistics.median(lap.start_processor_seconds for lap in own), 2),
        }
    mine, others = sides["ours"], [side for name, side in sides.items() if name.startswith("diffusers")]
    best = max(side["steps_per_second"] for side in others)
    soonest = min(side["start_seconds"] for side in others)
    sides["times_faster"] = round(mine["steps_per_second"] / best, 2)
    sides["start_share"] = round(mine["start_seconds"] / soonest, 2)
    if COMPILED in sides:
        sides["times_faster_compiled"] = round(sides[COMPILED]["steps_per_second"] / best, 2)
    return sides


def goals(cases: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Each case against both goals."""
    found = {}
    for name, sides in cases.items():
        times, share = sides["times_faster"], sides["start_share"]
        found[f"times faster: {name}"] = {"value": times, "goal": GOAL_PACE, "met": times >= GOAL_PACE}
        if (times := sides.get("times_faster_compiled")) is not None:
            found[f"times faster, compiled: {name}"] = {"value": times, "goal": GOAL_PACE, "met": times >= GOAL_PACE}
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scripts", type=Path, default=CACHE)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--compile", action="store_true", help="measure training.compile too")
    parser.add_argument("--only", default="", help="cases whose name has this in it")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    args.scripts = args.scripts.absolute()
    check_scripts(args.scripts)
    cases = [
        case for case in (Case(*x) for x in product(SCRIPTS, (False, True), (True, False))) if args.only in case.name
    ]
    laps: dict[str, list[dict[str, Lap]]] = {case.name: [] for case in cases}
    with tempfile.TemporaryDirectory() as folder:
        class_images(Path(folder), args.scripts, args.threads)
        for number, case in product(range(args.rounds), cases):
            laps[case.name].append(lap_of_all(case, number, Path(folder), args))
            print(f"round {number + 1}: {case.name}: {laps[case.name][-1]}", file=sys.stderr, flush=True)
    measured = {case.name: figures(case, laps[case.name]) for case in cases}
    tell({"cases": measured, "machine": machine(args.threads), "goals": goals(measured)}, args.out)


if __name__ == "__main__":
    main()
