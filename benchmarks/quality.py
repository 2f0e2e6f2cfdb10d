"""Is the subject learnt, and does its class survive it? python benchmarks/quality.py [--write]

Five subjects that no model here has seen (`examples/subjects`), each taught by LoRA and by Full with and without prior
preservation, by `dreambooth run` with the settings below; what was published is loaded by diffusers, drawn from and
measured with the trainer's scores. One JSON object. `--write` puts it, a table and a sheet of pictures into docs/.

Every training's figures are kept below `--out`: a benchmark that was stopped goes on where it was.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from PIL import Image, ImageDraw
from timed.report import host, tell

from dreambooth_trainer import scoring
from dreambooth_trainer.pictures import load_pictures

ROOT = Path(__file__).parents[1]
SUBJECTS = ("car", "cat", "fish", "ghost", "teapot")
# LoRA as the example job has it; one process with the batch of the example's two ranks.
METHODS: dict[str, dict[str, Any]] = {
    "LoRA": {"steps": 200, "learningRate": 2e-3, "lrScheduler": "constant_with_warmup", "warmupSteps": 10},
    # At a constant rate, with half the steps and 64 class images, two classes lost too much: docs/quality.md.
    "Full": {"steps": 240, "learningRate": 5e-4, "lrScheduler": "cosine", "warmupSteps": 10},
}
CLASS_IMAGES = {"LoRA": 64, "Full": 200}
PRIOR = {"steps": 20, "guidanceScale": 4.0}
TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2"]
SCENES = ("", " in the snow", " at night", " on the beach")
EACH, PLAIN, BATCH = 4, 64, 32
SIDE, STEPS, GUIDANCE = 32, 20, 4.0
DIV_TOLERANCE = 0.1
COLUMNS = {
    "clip_i": "CLIP-I",
    "dino": "DINO",
    "clip_t": "CLIP-T",
    "pres": "PRES",
    "div": "DIV",
    "div_of_base": "DIV / base",
    "drift": "drift",
}


def job(subject: str, method: str, weight: float) -> dict:
    """The job that teaches `subject`."""
    return {
        "apiVersion": "dreambooth.dev/v1alpha1",
        "kind": "DreamBoothJob",
        "metadata": {
            "name": f"{subject}-{method.lower()}-{'prior' if weight else 'plain'}",
            "annotations": {"dreambooth.dev/local-mirror": f"s3://dreambooth/examples={ROOT / 'examples'}"},
        },
        "spec": {
            "baseModel": {"uri": "s3://dreambooth/examples/base"},
            "subject": {
                "images": {"uri": f"s3://dreambooth/examples/subjects/{subject}"},
                "className": subject,
                "holdout": 1,
            },
            "prior": {"weight": weight, "images": CLASS_IMAGES[method], **PRIOR},
            "method": {"type": method, "lora": {"rank": 16, "alpha": 16, "targets": TARGETS}},
            "training": {"batchSize": 4, **METHODS[method]},
            "validation": {"images": 1, "steps": 2},
            "topology": {"gpusPerNode": 0},
            "publish": {"name": subject},
        },
    }


def train(body: dict, out: Path) -> Path:
    """Run the job as a person would; the artifact's folder. Class images and their latents are shared through `out`."""
    file = out / f"{body['metadata']['name']}.yaml"
    file.write_text(yaml.safe_dump(body), encoding="utf-8")
    subprocess.run([sys.executable, "-m", "dreambooth_trainer.run", file, "--out", out], check=True, stdout=sys.stderr)
    return out / "artifact"


def pipeline(artifact: Path | None) -> Any:
    """The base, or what was made of it, as diffusers loads it."""
    from diffusers import StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel

    parts: dict[str, Any] = {}
    if artifact is not None and (artifact / "unet").is_dir():
        parts["unet"] = UNet2DConditionModel.from_pretrained(artifact / "unet")
        parts["text_encoder"] = CLIPTextModel.from_pretrained(artifact / "text_encoder")
    made = StableDiffusionPipeline.from_pretrained(ROOT / "examples" / "base", **parts).to(torch.float32)
    if artifact is not None and not parts:
        made.load_lora_weights(artifact)
    made.set_progress_bar_config(disable=True)
    return made


def draw(made: Any, prompts: Sequence[str]) -> list[Image.Image]:
    """A picture per prompt, seeds as in scoring: the same noise for every model."""
    images: list[Image.Image] = []
    for start in range(0, len(prompts), BATCH):
        part = list(prompts[start : start + BATCH])
        generators = [torch.Generator().manual_seed(scoring.SEED + start + i) for i in range(len(part))]
        settings = {"num_inference_steps": STEPS, "guidance_scale": GUIDANCE, "height": SIDE, "width": SIDE}
        images += made(part, generator=generators, **settings).images
    return images


def drawn(made: Any, subject: str) -> scoring.Drawn:
    """The subject in its scenes, and plain pictures of its class."""
    scenes = [scene for scene in SCENES for _ in range(EACH)]
    pictures = draw(made, [f"a photo of sks {subject}{scene}" for scene in scenes])
    plain = draw(made, [f"a photo of a {subject}"] * PLAIN)
    return scoring.Drawn(pictures, [f"a photo of {subject}{scene}" for scene in scenes], plain)


def measure(got: scoring.Drawn, base: scoring.Drawn, held_out: list[Image.Image]) -> dict[str, float]:
    """The trainer's scores; the variety left of the base's; the drift of plain pictures away from the base's own.

    Drift is 1 − cosine of DINO features between plain pictures of one seed, before and after.
    """
    examples = ROOT / "examples"
    clip, dino = scoring.encoders({"clip": examples / "encoder", "dino": examples / "encoder-dino"})
    assert dino is not None
    scores = scoring.measure(got, held_out, clip, dino)
    before, after = dino.images(base.plain), dino.images(got.plain)
    scores["div_of_base"] = scores["div"] / scoring.variety(before)
    scores["drift"] = float(1 - (before * after).sum(1).mean())
    return scores


def subject_rows(subject: str, out: Path, pictures: Path) -> list[dict]:
    """The base's row and one per training; made before, they are read."""
    held_out = load_pictures(ROOT / "examples" / "subjects" / subject, SIDE, 1)
    base, rows = drawn(pipeline(None), subject), []
    strip([held_out.train[0].image, held_out.held_out[0].image], pictures / f"{subject}-0.png")
    for number, (method, prior) in enumerate(
        [("base", False), *((method, prior) for method in METHODS for prior in (True, False))], start=1
    ):
        kept = out / f"{subject}-{number}.json"
        if not kept.is_file():
            got = base
            if method != "base":
                got = drawn(pipeline(train(job(subject, method, 1.0 if prior else 0.0), out)), subject)
            row = {"subject": subject, "method": method, "prior": prior}
            strip([got.subject[0], got.subject[EACH], *got.plain[:4]], pictures / f"{subject}-{number}.png")
            kept.write_text(json.dumps({**row, **measure(got, base, [p.image for p in held_out.held_out])}))
        rows.append(json.loads(kept.read_text()))
    return rows


def strip(images: Sequence[Image.Image], path: Path) -> None:
    """Pictures beside one another."""
    wide = Image.new("RGB", (SIDE * len(images), SIDE))
    for i, image in enumerate(images):
        wide.paste(image, (i * SIDE, 0))
    wide.save(path)


def mean_rows(rows: list[dict]) -> list[dict]:
    """Each variant's means over the subjects."""
    variants = list(dict.fromkeys((row["method"], row["prior"]) for row in rows))
    return [
        {"subject": "mean", "method": method, "prior": prior}
        | {
            name: statistics.mean(row[name] for row in rows if (row["method"], row["prior"]) == (method, prior))
            for name in COLUMNS
        }
        for method, prior in variants
    ]


def goals(means: list[dict]) -> dict[str, dict]:
    """DIV with prior within a tenth of the base's, and the loss without one, by method."""
    found = {}
    div = {(row["method"], row["prior"]): row["div_of_base"] for row in means}
    for method in METHODS:
        kept, lost = div[method, True], div[method, False]
        found[f"{method}: DIV with prior / DIV of the base"] = {
            "value": round(kept, 3),
            "goal": 1 - DIV_TOLERANCE,
            "met": abs(1 - kept) <= DIV_TOLERANCE,
        }
        found[f"{method}: DIV lost without prior"] = {"value": round(kept - lost, 3), "goal": 0, "met": lost < kept}
    return found


def table(rows: list[dict]) -> str:
    """Rows as Markdown."""
    lines = [f"| subject | method | prior | {' | '.join(COLUMNS.values())} |", "|---|---|---|" + "--:|" * len(COLUMNS)]
    for row in rows:
        prior = "" if row["method"] == "base" else ("with" if row["prior"] else "without")
        figures = " | ".join(f"{row[name]:.2f}" for name in COLUMNS)
        lines.append(f"| {row['subject']} | {row['method']} | {prior} | {figures} |")
    return "\n".join(lines) + "\n"


def sheet(pictures: Path, target: Path, scale: int = 2) -> None:
    """A row per subject: two of its own pictures, then per variant two of the subject and four of the plain class."""
    heads = ("pictures", "base", *(f"{m}, {p} prior" for m in METHODS for p in ("with", "without")))
    strips = [[Image.open(pictures / f"{s}-{i}.png") for i in range(len(heads))] for s in SUBJECTS]
    gap, top = 8, 14
    widths = [image.width * scale + gap for image in strips[0]]
    made = Image.new("RGB", (sum(widths), top + len(SUBJECTS) * (SIDE * scale + gap)), "white")
    for column, head in enumerate(heads):
        left = sum(widths[:column])
        ImageDraw.Draw(made).text((left, 1), head, fill="black")
        for row, images in enumerate(strips):
            image = images[column]
            large = image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
            made.paste(large, (left, top + row * (SIDE * scale + gap)))
    made.save(target, optimize=True)


def document(result: dict) -> str:
    """docs/quality.md."""
    text = (Path(__file__).parent / "quality.md.in").read_text(encoding="utf-8")
    settings = "; ".join(
        f"{m}: {s['steps']} steps at {s['learningRate']:g} ({s['lrScheduler']}), {CLASS_IMAGES[m]} class images"
        for m, s in METHODS.items()
    )
    for mark, value in {
        "MEANS": table(result["means"]),
        "ROWS": table(result["rows"]),
        "SETTINGS": settings,
        "GOALS": "\n".join(f"- {n}: {g['value']}" for n, g in result["goals"].items()),
    }.items():
        text = text.replace(f"@{mark}@", value.strip())
    return text


def main() -> None:
    """Print the figures, the machine and the goals."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="where trainings are kept (default: a new folder)")
    parser.add_argument("--subjects", nargs="+", default=SUBJECTS, choices=SUBJECTS)
    parser.add_argument("--write", action="store_true", help="write docs/quality.json, .md and .png")
    args = parser.parse_args()
    out = args.out or Path(tempfile.mkdtemp(prefix="dreambooth-quality-"))
    pictures = out / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    rows = [row for subject in args.subjects for row in subject_rows(subject, out, pictures)]
    means = mean_rows(rows)
    result = {"rows": rows, "means": means, "machine": host(torch=torch.__version__), "goals": goals(means)}
    docs = ROOT / "docs"
    tell(result, docs / "quality.json" if args.write else None)
    if args.write:
        (docs / "quality.md").write_text(document(result), encoding="utf-8")
        sheet(pictures, docs / "quality.png")


if __name__ == "__main__":
    main()
