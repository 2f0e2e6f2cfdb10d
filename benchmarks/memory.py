"""Peak memory of every way to train, on the example base: python benchmarks/memory.py [--gpu] [--out FILE]

Each way trains twelve steps in a process of its own. On the CPU the figure is the peak of its resident memory, most of
which is the libraries': `libraries` is a process that only imports them. With --gpu it is the peak of the memory
allocated on the GPU (`torch.cuda.max_memory_allocated`). One JSON object.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from itertools import product
from pathlib import Path

from timed.report import tell
from training import CACHE, SCRIPTS, Case, child, class_images, machine

STEPS = 2
# What is added to a way, one at a time.
EXTRAS: dict[str, dict[str, object]] = {"ema": {"ema": 0.99}, "gradient checkpointing": {"gradientCheckpointing": True}}
LIBRARIES = (
    "import resource, torch, accelerate, peft; from diffusers import AutoencoderKL, StableDiffusionPipeline, "
    "UNet2DConditionModel; from transformers import CLIPTextModel, CLIPTokenizer; "
    "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
)


def peak(case: Case, extra: dict[str, object], work: Path, gpu: bool) -> int:
    """MiB."""
    body = case.job(STEPS)
    body["spec"]["training"] |= extra
    body["spec"]["topology"]["gpusPerNode"] = int(gpu)
    folder = Path(tempfile.mkdtemp(dir=work))
    shutil.copytree(work / "drawn/store/priors", folder / "store/priors")
    job = folder / "job.json"
    job.write_text(json.dumps(body))
    lap = child("ours", STEPS, work, [str(job), str(folder), "run"], CACHE, os.cpu_count() or 1)
    assert lap
    return round(lap.gpu_mib if gpu else lap.peak_mib)


def main() -> None:
    """Print the figures and the machine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gpu", action="store_true", help="measure a GPU's memory")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    figures = {}
    if not args.gpu:
        done = subprocess.run([sys.executable, "-c", LIBRARIES], capture_output=True, text=True, check=True)
        figures["libraries"] = round(float(done.stdout))
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        class_images(work, CACHE, os.cpu_count() or 1)
        for method, text_encoder in product(SCRIPTS, (False, True)):
            case = Case(method, text_encoder, True)
            figures[case.name] = peak(case, {}, work, args.gpu)
            for name, extra in EXTRAS.items():
                figures[f"{case.name}, {name}"] = peak(case, extra, work, args.gpu)
    tell({"peak_mib": figures, "machine": machine(os.cpu_count() or 1), "goals": {}}, args.out)


if __name__ == "__main__":
    main()
