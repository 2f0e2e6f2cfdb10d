"""Compiled replicas: made before they are ready, the same bits in every batch, and no compiler at work afterwards.

Programs are real; the U-Net has so few layers that they are soon made. They need g++ and Python's headers, as
`test_what_cannot_be_compiled_is_refused` says in the words that an operator gets.
"""

import itertools
import logging
import shutil
import sysconfig
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from server_kit import write_card, write_full, write_lora, write_manifest
from torch._dynamo.utils import counters

from dreambooth_api.compiling import CACHE
from dreambooth_api.exits import ExitCode
from dreambooth_api.job import MethodType
from dreambooth_api.reasons import Reason
from dreambooth_server import batches
from dreambooth_server.artifacts import LORA_WEIGHTS, Artifact, fetch_artifact
from dreambooth_server.batching import measure
from dreambooth_server.drawing import Drawing, Sampler
from dreambooth_server.faults import LoadFault
from dreambooth_server.service import Service, State
from dreambooth_server.settings import Places, Power, Room, Settings, SubjectSource
from dreambooth_server.studio import Studio, open_studio
from tests.slight import save_unet

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
COMPILED = Power(batch=2, compile=True)
PAIR = Power(batch=1, compile=True)
pytestmark = [pytest.mark.timeout(900), pytest.mark.usefixtures("compiler")]


@pytest.fixture(scope="module")
def slight(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example base with a U-Net of few layers."""
    folder = tmp_path_factory.mktemp("slight") / "base"
    shutil.copytree(base, folder, ignore=shutil.ignore_patterns("unet"))
    save_unet(folder / "unet")
    return folder


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Programs of all tests here; larger batches always pay, so that what decides is whether they keep every bit."""
    folder = tmp_path_factory.mktemp("programs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE, str(folder))
        patch.setattr(batches, "measure", partial(measure, clock=partial(next, itertools.count())))
        yield folder


@pytest.fixture(scope="module")
def subject(slight: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Artifact]:
    """`subject(name, write, **card)`: an artifact of `slight`, whose weights `write(folder)` writes."""
    where = tmp_path_factory.mktemp("subjects")

    def make(name: str, write: Callable[[Path], object], **card: Any) -> Artifact:
        folder = where / name
        folder.mkdir()
        write(folder)
        write_card(folder, slight, name=name, **card)
        source = SubjectSource(str(folder), write_manifest(folder), name)
        return fetch_artifact(source, Places(store=where / "none", work=where / "work"))

    return make


@pytest.fixture(scope="module")
def crowd(slight: Path, subject: Callable[..., Artifact]) -> dict[str, Artifact]:
    """More subjects than the pool has slots, one with DoRA."""
    made = {f"one{seed}": subject(f"one{seed}", partial(write_lora, base=slight, seed=seed)) for seed in range(3)}
    return {**made, "dora": subject("dora", partial(write_adapter, base=slight, layers=ATTENTION, dora=True))}


@pytest.fixture(scope="module")
def pool(slight: Path, cache: Path) -> Studio:
    """Compiled before it knows any subject."""
    studio = open_studio(slight, {}, room=Room(2, 8, 8), power=COMPILED)
    studio.compile()
    return studio


def write_adapter(folder: Path, base: Path, layers: tuple[str, ...], dora: bool = False) -> None:
    """Random updates of the U-Net's layers of these names, as peft names them."""
    rng, found = np.random.default_rng(5), {}
    for key, weight in load_file(next((base / "unet").glob("*.safetensors"))).items():
        name = key.removesuffix(".weight")
        if name == key or not name.endswith(layers):
            continue
        flat = weight.reshape(len(weight), -1)
        down, up = rng.normal(size=(4, flat.shape[1])) / flat.shape[1] ** 0.5, rng.normal(size=(len(weight), 4))
        found[f"unet.{name}.lora_A.weight"] = down.reshape(4, *weight.shape[1:])
        found[f"unet.{name}.lora_B.weight"] = up.reshape(len(weight), 4, *(1 for _ in weight.shape[2:]))
        if dora:
            found[f"unet.{name}.lora_magnitude_vector"] = np.linalg.norm(flat, axis=1) * 1.5
    save_file({name: each.astype("float32") for name, each in found.items()}, folder / LORA_WEIGHTS)


def drawing(model: str, seed: int = 7, **changes: Any) -> Drawing:
    return replace(Drawing(model, "a photo of sks robot in the snow", "", seed, 32, 32, 3, 4.0), **changes)


@contextmanager
def watched(studio: Studio, model: str = "base") -> Iterator[list[int]]:
    """Rows of the U-Net's calls that no program made; within, nothing may be compiled."""
    rows: list[int] = []
    # A program does not know hooks that came after it.
    hook = studio._parts(model, 0).unet.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    before = counters["stats"]["unique_graphs"]
    yield rows
    hook.remove()
    assert counters["stats"]["unique_graphs"] == before


def off(one: Any, other: Any) -> int:
    """The largest difference of two pictures, of 255."""
    return int(np.abs(np.asarray(one, int) - np.asarray(other, int)).max())


def test_what_cannot_be_compiled_is_refused(slight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> str:
        with pytest.raises(LoadFault, match="compile: needs ") as e:
            open_studio(slight, {}, power=COMPILED)
        assert (e.value.reason, e.value.exit_code) == (Reason.INVALID_SPEC, ExitCode.SPEC)
        return str(e.value)

    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    assert f"{tmp_path}/Python.h" in refused()
    monkeypatch.setenv("CXX", "/no/such/c++")
    assert "/no/such/c++" in refused()
    open_studio(slight, {})


def test_a_seed_is_a_picture_whatever_else_is_in_the_batch(pool: Studio, crowd: dict[str, Artifact]) -> None:
    """Bit by bit, with subjects that come and go through two slots; schedulers count steps in several types."""
    mixed = [drawing(name, seed, sampler=sampler) for seed, (name, sampler) in enumerate(zip(
        [*crowd, "base", "one0", "base"], itertools.cycle((Sampler.DPM, Sampler.EULER, Sampler.UNIPC))))]  # fmt: skip
    mixed.append(drawing("one1", 9, guidance_scale=1.0, steps=5))
    with watched(pool) as rows:
        for name, artifact in crowd.items():
            pool.add(name, artifact)
        alone = [pool.draw([one])[0].tobytes() for one in mixed]
        for order in (mixed, mixed[::-1], mixed[2:] + mixed[:2]):
            for one, picture in zip(order, pool.draw(order), strict=True):
                assert picture.tobytes() == alone[mixed.index(one)]
    assert len(set(alone)) == len(mixed)
    assert rows == []
    assert pool._batches.usual().rows == (2, 4)


def test_a_program_draws_what_its_layers_draw(pool: Studio, crowd: dict[str, Artifact], slight: Path) -> None:
    plain = open_studio(slight, crowd)
    for name, artifact in crowd.items():
        pool.add(name, artifact)
    for name in (*crowd, "base"):
        assert off(pool.draw([drawing(name)])[0], plain.draw([drawing(name)])[0]) <= 1


def test_other_sizes_are_drawn_layer_by_layer(pool: Studio, crowd: dict[str, Artifact]) -> None:
    pool.add("one0", crowd["one0"])
    two = [drawing("one0", 1, width=24), drawing("base", 2, width=24)]
    with watched(pool) as rows:
        alone = [pool.draw([one])[0].tobytes() for one in two]
        assert [picture.tobytes() for picture in pool.draw(two)] == alone
    assert len(rows) >= 9


def test_layers_that_no_program_was_made_for_are_refused(
    pool: Studio, slight: Path, subject: Callable[..., Artifact]
) -> None:
    spread = subject("spread", partial(write_adapter, base=slight, layers=(*ATTENTION, "conv1")))
    with pytest.raises(LoadFault, match=r"unet\.\S+\.conv1: an adapter of this layer .* method\.lora\.targets") as e:
        pool.add("spread", spread)
    assert e.value.reason is Reason.ARTIFACT_INVALID
    assert not pool.at_hand("spread")


def test_pods_of_their_own_have_programs_of_exactly_their_subjects(
    slight: Path, subject: Callable[..., Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Convolutions and DoRA among them, and a U-Net of its own. Traced as ever, but not made into machine code, which
    takes a minute each."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    folder = partial(write_adapter, base=slight, layers=("conv1", "to_q", "time_emb_proj"), dora=True)
    subjects = {
        "wide": subject("wide", folder),
        "boxy": subject("boxy", partial(write_full, base=slight, seed=3), method=MethodType.FULL, lora=None),
    }
    studio, plain = open_studio(slight, subjects, power=PAIR), open_studio(slight, subjects)
    studio.compile()
    for name in subjects:
        with watched(studio, name) as rows:
            ours = studio.draw([drawing(name)])[0]
        assert rows == []
        assert off(ours, plain.draw([drawing(name)])[0]) <= 1
        assert off(ours, plain.draw([drawing("base")])[0]) > 8


def test_it_is_ready_when_programs_are_made_and_finds_them_when_it_starts_again(
    slight: Path, pool: Studio, cache: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    compile_, states = Studio.compile, []
    # As in a new process: what is traced anew finds its programs on the disk.
    torch._dynamo.reset()
    made = {path.name for path in cache.rglob("*.so")}

    def watch(studio: Studio) -> None:
        states.append(service.state)
        compile_(studio)
        states.append(service.state)

    monkeypatch.setattr(Studio, "compile", watch)
    caplog.set_level(logging.INFO)
    places = Places(store=tmp_path / "none", work=tmp_path)
    service = Service(Settings(base=f"file://{slight}", room=Room(2, 8, 8), power=COMPILED, places=places))
    with ThreadPoolExecutor(1) as loading:
        loading.submit(service.load).result()
    try:
        assert states == [State.LOADING] * 2
        assert service.state is State.READY
        with watched(service.engine) as rows:  # type: ignore[arg-type]
            assert service.engine.draw([drawing("base")])  # type: ignore[attr-defined]
        assert rows == []
    finally:
        service.close()
    assert {path.name for path in cache.rglob("*.so")} == made != set()
    seconds = service.metrics.registry.get_sample_value("dreambooth_start_duration_seconds", {"stage": "compile"})
    assert seconds is not None
    assert seconds > 0
    assert [f"compiling {n} of 2: {rows} rows of 32x32" for n, rows in ((1, 2), (2, 4))] == [
        record.message for record in caplog.records if record.message.startswith("compiling")
    ]
