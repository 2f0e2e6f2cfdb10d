"""What a training loads, and what it leaves until it is needed; in processes of their own: other tests load all."""

import json
import multiprocessing
import subprocess
import sys
from pathlib import Path

import pytest

from dreambooth_trainer import libraries
from tests.trainer.test_session import rank_that_tells
from tests.trainer.test_sharding import divided

COLLECTED = """
import gc
from dreambooth_trainer import libraries
libraries.load()
frozen = gc.get_freeze_count()
libraries.load()
assert gc.isenabled()
assert gc.get_freeze_count() == frozen > 100_000
import sys
assert {"accelerate", "diffusers.models.unets.unet_2d_condition", "peft.tuners.lora", "torch"} <= set(sys.modules)
"""

KNOWN = """
from importlib import import_module
from operator import attrgetter

import peft
import torch

from dreambooth_api import imports

wrong = []
for name in imports.uncompiled():
    try:
        attrgetter(name)(torch._dynamo)
    except AttributeError:
        wrong.append(f"torch._dynamo has no {name}")
def doubled(x):
    return 2 * x

for name in ("allow_in_graph", "assume_constant_result", "disable"):
    if getattr(torch._dynamo, name)(doubled)(3) != 6:
        wrong.append(f"torch._dynamo.{name} changes what a function does")
if torch._dynamo.graph_break() is not None:
    wrong.append("torch._dynamo.graph_break has a result")
for name, home in imports.PEFT.items():
    if getattr(import_module(home), name, None) is not getattr(peft, name, home):
        wrong.append(f"peft.{name} is not from {home}")
assert not wrong, wrong
"""

# The last one brings bitsandbytes, and that torch's compiler.
HOW: dict[str, dict] = {
    "LoRA": {"method": {"trainTextEncoder": True}, "training": {"ema": 0.9}},
    "Full": {"method": {"type": "Full"}, "training": {}},
    "Prodigy": {"method": {"lora": {"rank": 4, "dora": True}}, "training": {"optimizer": "Prodigy"}},
    "Adafactor": {"method": {"learnToken": True}, "training": {"optimizer": "Adafactor"}},
    "AdamW8bit": {"training": {"optimizer": "AdamW8bit"}},
}


def run(*command: object) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, command)], capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stderr


def test_what_libraries_leave_in_memory_is_collected_no_more() -> None:
    assert "leaked" not in run("-c", COLLECTED)


def test_what_is_known_beforehand_of_the_libraries_holds() -> None:
    run("-c", KNOWN)


def test_a_training_is_the_same_without_what_it_does_not_load(tmp_path: Path, small_job, class_images: Path) -> None:
    """By losses and by every tensor in the store, bit for bit, whichever optimizer; and it does not load it."""
    kept: dict[str, dict[str, object]] = {}
    for way in ("lean", "whole"):
        folders = [tmp_path / way / name for name in HOW]
        for folder in folders:
            spec = {**HOW[folder.name], "training": {"steps": 3, **HOW[folder.name]["training"]}}
            (folder / "store").mkdir(parents=True)
            (folder / "store" / "priors").symlink_to(class_images)
            (folder / "job.json").write_text(json.dumps(small_job(**spec)))
        run("-m", "tests.trainer.started", way, *folders)
        kept[way] = {str(path.relative_to(tmp_path / way)): path.read_bytes() for path in tensors(tmp_path / way)}
        kept[way] |= {folder.name: (folder / "losses").read_text() for folder in folders}
    assert len(kept["lean"]) > 3 * len(HOW)
    assert kept["lean"].keys() == kept["whole"].keys()
    assert [name for name in kept["lean"] if kept["lean"][name] != kept["whole"][name]] == []


def tensors(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


def lean_rank(*args) -> None:
    """A rank in a process that imported nothing before; torch's compiler is loaded once ranks ask for it."""
    libraries.load(False)
    assert "torch._dynamo.convert_frame" not in sys.modules
    rank_that_tells(*args)


@pytest.mark.parametrize("sharding", ["replicated", "divided"])
def test_two_ranks_are_the_same_without_it(ready, processes, free_port, tmp_path: Path, sharding: str) -> None:
    told: dict[str, list[str]] = {}
    for name, kind, target in (
        ("lean", multiprocessing.get_context("spawn"), lean_rank),
        ("whole", processes, rank_that_tells),
    ):
        ctx, port = ready(name, training={"steps": 3}), free_port()
        ctx = divided(ctx) if sharding == "divided" else ctx
        ranks = [kind.Process(target=target, args=(ctx, r, port, tmp_path / f"{name}.txt")) for r in range(2)]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join(250)
        assert [process.exitcode for process in ranks] == [0, 0]
        told[name] = sorted((tmp_path / f"{name}.txt").read_text().splitlines())
    assert len(told["lean"]) == 3 * 2 * 4
    assert told["lean"] == told["whole"]
