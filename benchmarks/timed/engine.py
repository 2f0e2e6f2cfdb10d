"""One process of `benchmarks/serving.py`: what our engine, and diffusers, take for parts of the work.

python benchmarks/timed/engine.py BASE SUBJECTS STORE_URI KEYS WORK: one JSON object, milliseconds.
python benchmarks/timed/engine.py --compile BASE PROGRAMS: steps without and with programs, which are kept in PROGRAMS.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

ROUNDS = 40


def percentiles(found: list[float]) -> dict[str, float]:
    """p50 and p95, milliseconds."""
    ordered = sorted(found)
    return {"p50": round(median(ordered) * 1e3, 2), "p95": round(ordered[int(0.95 * (len(ordered) - 1))] * 1e3, 2)}


def timed(work: Callable[[], Any]) -> float:
    """Seconds."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def processor() -> float:
    """Seconds of the processor that this process and those that it has ended took."""
    return sum(os.times()[:4])


def swaps(base: Path, subjects: Path, store: str, keys: Path, work: Path) -> dict[str, Any]:
    """Until a subject's adapter is in a slot, by where it was."""
    from dreambooth_server.artifacts import fetch_artifact, kept_artifact
    from dreambooth_server.settings import Places, Room, SubjectSource
    from dreambooth_server.studio import open_studio
    from dreambooth_server.verify import check_manifest  # noqa: F401  (imported before the clock runs)

    names = sorted(path.name for path in subjects.iterdir())[:20]
    places = Places(store=keys, work=work)
    found: dict[str, list[float]] = {"warm": [], "disk": [], "store": []}
    studio = open_studio(base, {}, room=Room(1, len(names), 16))
    sources: dict[str, SubjectSource] = {}
    for name in names:
        manifest = json.loads((subjects / name / "digest").read_text())
        sources[name] = SubjectSource(f"{store}/{name}", manifest, name)

    def placed(name: str) -> None:
        studio._take(name)
        studio._shelf.give(name)

    def fetched(name: str) -> None:
        studio.add(name, fetch_artifact(sources[name], places))
        placed(name)

    found["store"] = [timed(lambda name=name: fetched(name)) for name in names]
    found["warm"] = [timed(lambda name=name: placed(name)) for _ in range(2) for name in names]
    cold = open_studio(base, {}, room=Room(1, 1, 16))

    def from_disk(name: str) -> None:
        artifact = kept_artifact(sources[name], places)
        assert artifact is not None
        cold.add(name, artifact)
        cold._shelf.take(name, lambda: None)
        cold._shelf.give(name)

    found["disk"] = [timed(lambda name=name: from_disk(name)) for name in names]
    return {tier: percentiles(values) for tier, values in found.items()}


def guidance(base: Path) -> dict[str, Any]:
    """One step: both prompts in one pass, against two passes."""
    from dreambooth_server.rehearsal import Rehearsal
    from dreambooth_server.settings import Room
    from dreambooth_server.studio import open_studio

    studio = open_studio(base, {}, room=Room(1, 1, 16))
    side = studio.abilities.resolution
    rehearsal = Rehearsal(studio._base, (side, side), studio._slots, 16)
    with studio._slots.disturbed():
        rows = {count: range(count) for count in (1, 2, 4, 8, 16)}
        for count in rows:
            rehearsal.forward(rows[count])
        batched = [timed(lambda: rehearsal.forward([0, 1])) for _ in range(ROUNDS)]
        passes = [timed(lambda: (rehearsal.forward([0]), rehearsal.forward([1]))) for _ in range(ROUNDS)]
        steps = {c: [timed(lambda c=c: rehearsal.forward(rows[c])) for _ in range(ROUNDS // 2)] for c in rows}
        studio.warm_up()
    return {
        "guided_step": {"one pass": percentiles(batched), "two passes": percentiles(passes)},
        "step_by_rows": {str(count): percentiles(values) for count, values in steps.items()},
        "rows_that_keep_every_bit_and_pay": list(studio._batches.usual().rows),
    }


def compiled(base: Path, programs: Path) -> dict[str, Any]:
    """A step in turns, layer by layer and by programs, for numbers of rows; and what the programs took to make.

    In the processor's time, which holds on a machine that is shared: of this process and of one compiler after another.
    """
    from dreambooth_api.compiling import CACHE, COMPILERS

    os.environ.update({CACHE: str(programs), COMPILERS: "1"})
    from dreambooth_server.batching import COMPILED
    from dreambooth_server.rehearsal import Rehearsal
    from dreambooth_server.settings import Power, Room
    from dreambooth_server.studio import open_studio

    room, most = Room(8, 8, 16), 2 * Power().batch
    sides = {"layers": open_studio(base, {}, room=room)}
    sides["programs"] = open_studio(base, {}, room=room, power=Power(compile=True))
    before = processor()
    seconds, spent = timed(sides["programs"].compile), processor() - before
    rehearsals = {n: Rehearsal(s._base, (s.abilities.resolution,) * 2, s._slots, most) for n, s in sides.items()}
    steps: dict[str, Any] = {}
    for rows in (range(count) for count in COMPILED if count <= most):
        took: dict[str, list[float]] = {name: [] for name in sides}
        for name, rehearsal in [*rehearsals.items()] * ROUNDS:
            begun = time.process_time()
            rehearsal.forward(rows)
            took[name].append(time.process_time() - begun)
        steps[str(len(rows))] = {name: percentiles(values) for name, values in took.items()}
    return {
        "seconds_to_compile": {"clock": round(seconds, 1), "processor": round(spent, 1)},
        "processor_ms_by_rows": steps,
        "rows_that_keep_every_bit_and_pay": {name: list(s._batches.usual().rows) for name, s in sides.items()},
    }


def plain(base: Path, subjects: Path) -> dict[str, Any]:
    """diffusers: `load_lora_weights` of one more subject, and `set_adapters` among them."""
    import torch
    from diffusers import StableDiffusionPipeline

    torch.set_num_threads(1)
    pipeline: Any = StableDiffusionPipeline.from_pretrained(str(base), safety_checker=None, local_files_only=True)
    names = sorted(path.name for path in subjects.iterdir())[:20]
    load = [timed(lambda n=n: pipeline.load_lora_weights(str(subjects / n), adapter_name=n)) for n in names]
    choose = [timed(lambda n=n: pipeline.set_adapters([n])) for n in names]
    return {"load_lora_weights": percentiles(load), "set_adapters": percentiles(choose)}


def main(base: str, subjects: str, store: str = "", keys: str = "", work: str = "") -> None:
    """Print all of it."""
    if base == "--compile":
        print(json.dumps(compiled(Path(subjects), Path(store))))
        return
    found = {
        "swap_ms": swaps(Path(base), Path(subjects), store, Path(keys), Path(work)),
        "diffusers_swap_ms": plain(Path(base), Path(subjects)),
        **guidance(Path(base)),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
