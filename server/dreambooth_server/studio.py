"""The engine of one machine: a base and its subjects in memory; each picture of a batch has its own adapter."""

import copy
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from dreambooth_api.job import MethodType
from dreambooth_api.reasons import Reason
from dreambooth_server import sampler
from dreambooth_server.artifacts import Artifact, rank_of
from dreambooth_server.batches import Batches
from dreambooth_server.batching import ALONE
from dreambooth_server.compiling import check_compiler
from dreambooth_server.drawing import Cancelled, Drawing, Refused
from dreambooth_server.engine import Abilities
from dreambooth_server.faults import LoadFault
from dreambooth_server.loading import (
    Placement,
    best_placement,
    choose_threads,
    first_line,
    full_parts,
    load_pipeline,
    parts_of,
)
from dreambooth_server.metrics import Metrics, make_metrics
from dreambooth_server.programs import Programs
from dreambooth_server.sampler import Parts, Run, Words
from dreambooth_server.settings import BASE_MODEL, Power, Room
from dreambooth_server.shelf import NoRoom, Shelf, Tier
from dreambooth_server.slots import BASE_SLOT, Slots
from dreambooth_server.steady import make_steady
from dreambooth_server.token import SlotTokens, add_token
from dreambooth_server.weights import Adapter, read_adapter

_REMEMBERED = 128
_NO_MEMORY = "the device has too little memory for this: ask for fewer or smaller pictures"


class Studio:
    """Implements `engine.Engine`. Not thread-safe but for what its docstrings say."""

    def __init__(self, pipeline: Any, room: Room, power: Power, metrics: Metrics) -> None:
        """`pipeline`: the plain base, of diffusers."""
        self.artifacts: dict[str, Artifact] = {}
        self._pipeline, self._room, self._power, self._metrics = pipeline, room, power, metrics
        self._base = self._prepared(parts_of(pipeline))
        self._networks = {"unet": self._base.unet, "text_encoder": self._base.text_encoder}
        if self._base.text_encoder_2 is not None:
            self._networks["text_encoder_2"] = self._base.text_encoder_2
        self._slots = Slots(self._networks, room.on_device, room.max_rank)
        self._tokens = SlotTokens(self._base, room.on_device)
        self._shelf = Shelf(room.on_device, room.in_memory, self._put)
        self._words: OrderedDict[tuple[str, str], Words] = OrderedDict()
        self._full: dict[str, Parts] = {}
        # A copy for counting: the setting of padding and truncation by another thread would reach the drawing.
        self._counter = copy.deepcopy(self._base.tokenizer)
        tokenizer, base = self._base.tokenizer, self._base
        self.abilities = Abilities(
            resolution=base.unet.config.sample_size * base.scale,
            multiple=max(8, base.scale),
            prompt_tokens=tokenizer.model_max_length - tokenizer.num_special_tokens_to_add(),
            device=base.device.type,
        )
        self._batches = Batches(base, self._slots, power.batch, self.abilities.resolution)
        for tier in (Tier.DEVICE, Tier.MEMORY):
            metrics.adapters.labels(tier).set_function(partial(self._shelf.count, tier))

    def add(self, key: str, artifact: Artifact) -> None:
        """Know a subject as `key`, its weights in memory at least. LoRA: from any thread. Raises LoadFault."""
        try:
            if artifact.card.method is MethodType.LORA:
                self._shelf.keep(key, lambda: self._read(artifact))
            else:
                parts = self._prepared(full_parts(self._base, artifact.folder, self._pipeline))
                self._full[key] = add_token(parts, artifact, f"<{key}>") if artifact.card.learned_token else parts
        except (RuntimeError, ValueError, KeyError, OSError) as e:
            message = f"{artifact.name}: its weights do not fit the base: {first_line(e)}"
            raise LoadFault(Reason.ARTIFACT_INVALID, message) from e
        self.artifacts[key] = artifact

    def at_hand(self, key: str) -> bool:
        """Whether the subject can be drawn without reading anything. From any thread."""
        return key in self._full or (key in self.artifacts and self._shelf.has(key))

    def count_tokens(self, prompt: str) -> int:
        """Tokens of `prompt`. May be called from any thread."""
        return len(self._counter(prompt, add_special_tokens=False, truncation=False, verbose=False).input_ids)

    def joins(self, drawing: Drawing, running: Sequence[Run]) -> bool:
        """Whether `drawing` can begin now: of the same U-Net and size as those that run, and a slot is free."""
        if not running:
            return True
        first = running[0]
        if drawing.size != first.drawing.size or self._unet(drawing.model) is not first.parts.unet:
            return False
        sizes = self._batches.sizes(first.parts, drawing.size)
        rows = sum(run.drawing.rows for run in running) + drawing.rows
        fits = rows <= sizes.most and len(sizes.rows) > 1
        return fits and (not self._adapted(drawing) or self._shelf.free(drawing.model))

    def begin(self, drawing: Drawing) -> Run:
        """Noise and words, and the subject's adapter in a slot. Raises Refused."""
        slot = self._take(drawing.model) if self._adapted(drawing) else BASE_SLOT
        try:
            with torch.inference_mode(), self._slots.chosen([slot]):
                parts = self._parts(drawing.model, slot)
                return sampler.begin(parts, drawing, slot, lambda prompt: self._words_of(drawing.model, prompt, parts))
        except Exception as e:
            if slot != BASE_SLOT:
                self._shelf.give(drawing.model)
            raise _refusal(e) from e

    def step(self, running: Sequence[Run]) -> None:
        """One step of each, in one forward pass; when that fails, each by itself, so that only the cause fails."""
        begun = time.perf_counter()
        try:
            self._advance(running, self._rows(running))
        except Exception as e:  # A batch's edge.
            if len(running) == 1:
                running[0].fault = _refusal(e)
            else:
                for run in running:
                    self.step([run])
            return
        self._metrics.batch_size.observe(len(running))
        self._metrics.step_seconds.observe(time.perf_counter() - begun)

    def finish(self, run: Run) -> Image.Image:
        """The picture of one that has no step left. Raises Refused."""
        try:
            return sampler.finish(run)
        except Exception as e:
            raise _refusal(e) from e

    def end(self, run: Run) -> None:
        """What it held is free."""
        if run.slot != BASE_SLOT:
            self._shelf.give(run.drawing.model)

    def draw(self, drawings: Sequence[Drawing], stop: Callable[[], bool] = lambda: False) -> list[Image.Image]:
        """The pictures in the order of `drawings`, in batches where they can. Raises Refused, Cancelled."""
        waiting = list(enumerate(drawings))
        running: dict[int, Run] = {}
        pictures: dict[int, Image.Image] = {}
        try:
            while waiting or running:
                while waiting and self.joins(waiting[0][1], list(running.values())):
                    place, drawing = waiting.pop(0)
                    running[place] = self.begin(drawing)
                if stop():
                    raise Cancelled
                self.step(list(running.values()))
                for place, run in list(running.items()):
                    if run.fault is not None:
                        raise run.fault
                    if run.finished:
                        pictures[place] = self.finish(run)
                        self.end(running.pop(place))
        finally:
            for run in running.values():
                self.end(run)
        return [pictures[place] for place in range(len(drawings))]

    def warm_up(self) -> None:
        """Measure which batches pay at the usual size, if that is not known yet.

        Not before the first picture: whoever woke this replica waits for that one, and it needs no batch.
        """
        self._batches.usual()

    def compile(self) -> None:
        """Make programs for the usual size, before anything is drawn; no adapter can change them later.

        Raises LoadFault.
        """
        adapted = [name for name in self.artifacts if name not in self._full]
        for name in adapted:
            # The layers that it changes, and what DoRA needs for them, become part of the programs.
            self._take(name)
            self._shelf.give(name)
        self._slots.settle("unet")
        own = list(self._full.values())
        # Where all subjects have U-Nets of their own, the base's is seldom asked.
        self._batches.compile(own if own and not adapted else [self._base, *own])

    def _rows(self, running: Sequence[Run]) -> int:
        """The number of rows to compute them with."""
        rows = sum(run.drawing.rows for run in running)
        # A guided picture by itself is what all numbers are compared with: nothing need be measured for it.
        if rows == ALONE and len(running) == 1:
            return rows
        return self._batches.sizes(running[0].parts, running[0].drawing.size).filled(rows)

    def _prepared(self, parts: Parts) -> Parts:
        # What a GPU's kernels would need was not measured; what batches keep is, before any is used.
        if parts.device.type == "cpu":
            make_steady(parts.unet, ALONE * self._power.batch)
        return replace(parts, programs=Programs(parts.unet)) if self._power.compile else parts

    def _advance(self, running: Sequence[Run], rows: int) -> None:
        slots = [run.slot for run in running for _ in range(run.drawing.rows)]
        slots += slots[:1] * (rows - len(slots))
        with torch.inference_mode(), self._slots.chosen(slots):
            sampler.advance(running, rows)

    def _adapted(self, drawing: Drawing) -> bool:
        return drawing.model != BASE_MODEL and drawing.model not in self._full

    def _unet(self, model: str) -> Any:
        return self._full.get(model, self._base).unet

    def _parts(self, model: str, slot: int) -> Parts:
        if slot == BASE_SLOT or not self.artifacts[model].card.learned_token:
            return self._full.get(model, self._base)
        return replace(self._base, spoken=self._tokens.speaker(self.artifacts[model].card.identifier, slot))

    def _words_of(self, model: str, prompt: str, parts: Parts) -> Words:
        """What `prompt` means to `model`; what was read lately is remembered: many share a negative prompt."""
        key = (model, prompt)
        words = self._words.pop(key, None) or sampler.encode(parts, prompt)
        self._words[key] = words
        if len(self._words) > _REMEMBERED:
            self._words.popitem(last=False)
        return words

    def _take(self, model: str) -> int:
        begun = time.perf_counter()
        try:
            slot, tier = self._shelf.take(model, lambda: self._read(self.artifacts[model]))
        except NoRoom:
            raise
        except Exception as e:
            raise _refusal(e) from e
        if tier is not Tier.DEVICE:
            self._metrics.swap_seconds.labels(tier).observe(time.perf_counter() - begun)
        return slot

    def _read(self, artifact: Artifact) -> Adapter:
        adapter = read_adapter(artifact, self._pipeline, self._networks, self._room.max_rank)
        self._slots.check(adapter)
        return adapter

    def _put(self, slot: int, adapter: Adapter) -> None:
        self._slots.put(slot, adapter)
        self._tokens.put(slot, adapter.token)


def _refusal(error: Exception) -> Exception:
    """What a client is told of `error`; what nobody foresaw stays as it is, and is logged."""
    if isinstance(error, torch.OutOfMemoryError):
        torch.cuda.empty_cache()
        return Refused(_NO_MEMORY)
    return error


def open_studio(
    base: Path,
    artifacts: Mapping[str, Artifact],
    placement: Placement | None = None,
    power: Power | None = None,
    room: Room | None = None,
    metrics: Metrics | None = None,
) -> Studio:
    """Load the base in the folder `base` and the subjects on it; by default where it is fastest. Raises LoadFault.

    Without `room` there is a slot for each of the subjects, and no more.
    """
    power = power or Power()
    placement = placement or best_placement(power.precision)
    if power.compile:
        check_compiler(placement.device)
    pipeline = load_pipeline(base, placement)
    choose_threads(pipeline.unet, placement)
    try:
        studio = Studio(pipeline, room or _fitting(artifacts), power, metrics or make_metrics())
        if room is not None:
            # Programs are made before the first adapter with DoRA comes.
            studio._slots.reserve(gains=power.compile)
    except torch.OutOfMemoryError as e:
        message = "the adapters' slots do not fit into the device's memory: lower adapters.onDevice or adapters.maxRank"
        raise LoadFault(Reason.GPU_OUT_OF_MEMORY, message) from e
    for name, artifact in artifacts.items():
        studio.add(name, artifact)
    return studio


def _fitting(artifacts: Mapping[str, Artifact]) -> Room:
    """Room for exactly these."""
    adapted = [artifact for artifact in artifacts.values() if artifact.card.method is MethodType.LORA]
    rank = max((rank_of(artifact) for artifact in adapted), default=1)
    return Room(on_device=max(1, len(adapted)), in_memory=max(1, len(adapted)), max_rank=rank)
