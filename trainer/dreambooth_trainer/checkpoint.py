"""The whole state of a training in the store: crash-safe and verified.

A checkpoint is a folder `step-NNNNNN` with weights, optimizer, average (all safetensors) and `state.json`, and its
manifest last. The newest valid one wins; older ones are pruned only after a newer one is committed.
"""

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from dreambooth_api import layout
from dreambooth_api.conditions import now
from dreambooth_api.job import CheckpointStatus
from dreambooth_api.names import MANIFEST
from dreambooth_trainer.context import Context
from dreambooth_trainer.faults import MAKE_ROOM, CheckpointsCorrupt, StoreUnavailable, TrainerFault
from dreambooth_trainer.manifests import CorruptFolder, get_folder, put_folder
from dreambooth_trainer.patience import is_disk_full, patiently
from dreambooth_trainer.store import Store

T = TypeVar("T")
_STEP = re.compile(r"^step-(\d+)/")
STATE = "state.json"


@dataclass
class State:
    """All that a training needs to go on exactly."""

    step: int
    # Subject's samples consumed over all ranks: the position in the stream, whatever the world's size.
    samples: int
    fingerprint: str
    world_size: int
    weights: dict[str, Tensor]
    optimizer: dict[str, Any]
    ema: dict[str, Tensor] = field(default_factory=dict)
    scaler: dict[str, Any] = field(default_factory=dict)
    # Numbers that MLflow has not taken yet: (step, values, milliseconds).
    unsent: list[tuple[int, dict[str, float], int]] = field(default_factory=list)
    # Whether its tensors are copies already, which no step changes.
    copied: bool = False
    # Of tensors on a GPU: the event after which they are as this step left them.
    ready: Any = None


def write_state(state: State, folder: Path) -> None:
    """Write `state` as files of `folder`."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tensors, plain = _split(state.optimizer)
    save_file(state.weights, folder / "weights.safetensors")
    save_file(tensors, folder / "optimizer.safetensors")
    if state.ema:
        save_file(state.ema, folder / "ema.safetensors")
    facts = {
        "step": state.step,
        "samples": state.samples,
        "fingerprint": state.fingerprint,
        "worldSize": state.world_size,
        "optimizer": plain,
        "scaler": state.scaler,
        "unsent": state.unsent,
    }
    (folder / STATE).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def read_state(folder: Path) -> State:
    """The state in `folder`. Raises ValueError, KeyError or OSError when it is not one."""
    facts = json.loads((folder / STATE).read_text(encoding="utf-8"))
    ema = folder / "ema.safetensors"
    return State(
        step=facts["step"],
        samples=facts["samples"],
        fingerprint=facts["fingerprint"],
        world_size=facts["worldSize"],
        weights=_read_tensors(folder / "weights.safetensors"),
        optimizer=_join(_read_tensors(folder / "optimizer.safetensors"), facts["optimizer"]),
        ema=_read_tensors(ema) if ema.is_file() else {},
        scaler=facts["scaler"],
        unsent=[(step, values, stamp) for step, values, stamp in facts["unsent"]],
    )


def _read_tensors(path: Path) -> dict[str, Tensor]:
    """Copies: what is mapped from a file would keep its room on the disk taken after the file is gone."""
    from safetensors.torch import load_file

    return {name: tensor.clone() for name, tensor in load_file(path).items()}


def _split(optimizer: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimizer's state_dict as tensors by path and what JSON can hold."""
    tensors: dict[str, Tensor] = {}
    places: set[int] = set()

    def take(path: str, value: Any) -> Any:
        if isinstance(value, Tensor):
            kept = value.detach().cpu().contiguous()
            # A table that states share is kept with each of them: a file holds no shared memory.
            tensors[path] = kept.clone() if kept.data_ptr() in places else kept
            places.add(kept.data_ptr())
            return {"tensor": path}
        if isinstance(value, dict):
            return {"dict": {str(k): take(f"{path}.{k}", v) for k, v in value.items()}}
        if isinstance(value, list | tuple):
            return {type(value).__name__: [take(f"{path}.{i}", v) for i, v in enumerate(value)]}
        return value

    return tensors, take("o", optimizer)


def _join(tensors: dict[str, Tensor], plain: Any) -> Any:
    """The inverse of `_split`; the optimizer's keys are parameters' numbers."""
    if not isinstance(plain, dict):
        return plain
    ((kind, value),) = plain.items()
    if kind == "tensor":
        return tensors[value]
    if kind == "dict":
        return {int(k) if k.isdigit() else k: _join(tensors, v) for k, v in value.items()}
    items = [_join(tensors, v) for v in value]
    return tuple(items) if kind == "tuple" else items


def _lacks_room(error: BaseException) -> bool:
    """Whether `error` says that this machine's disk is full; a store that is full has said so as a fault."""
    return is_disk_full(error) and not isinstance(error, TrainerFault)


class Checkpoints:
    """A job's checkpoints in the store."""

    def __init__(
        self, ctx: Context, say: Callable[[str], None] = print, spare: Callable[[], int | None] = lambda: None
    ) -> None:
        """`spare`: the step of the checkpoint that is not pruned, however old: the best so far."""
        self.ctx, self.say, self.spare = ctx, say, spare
        self.local = ctx.work / "checkpoints" / ctx.uid

    def at(self, step: int) -> Store:
        """The folder of one step."""
        ctx = self.ctx
        return ctx.store.at(layout.checkpoint_prefix(ctx.namespace, ctx.name, ctx.uid, step))

    def committed(self) -> list[int]:
        """Steps that have a manifest, oldest first."""
        return self._steps(only=MANIFEST)

    def newest(self, fingerprint: str) -> State | None:
        """The newest valid state; None when there never was one.

        Corrupt and foreign ones are skipped with a warning. Raises CheckpointsCorrupt when only such are left.
        """
        steps = self.committed()
        for step in reversed(steps):
            try:
                state = self.load(step)
            except CorruptFolder as e:
                self.say(f"checkpoint of step {step} is skipped: {e}")
                continue
            if state.fingerprint == fingerprint:
                return state
            self.say(f"checkpoint of step {step} is skipped: it is of other settings, pictures or another base")
        if steps:
            raise CheckpointsCorrupt(
                f"none of {len(steps)} checkpoints in {self.ctx.checkpoints.uri} can be used; "
                "remove them to start over, or make a new job"
            )
        return None

    def load(self, step: int) -> State:
        """The state of one step, verified. Raises CorruptFolder; StoreUnavailable when there is no room for it here."""
        from safetensors import SafetensorError

        store = self.at(step)

        def fetch(folder: Path) -> State:
            get_folder(store, folder)
            return read_state(folder)

        try:
            return self._on_disk(fetch)
        except (ValueError, KeyError, OSError, SafetensorError) as e:
            raise CorruptFolder(f"{store.uri} holds no training state: {e}") from e

    def commit(self, state: State, keep: int) -> CheckpointStatus:
        """Write, upload, commit; prune all but the `keep` newest. Raises StoreUnavailable, for a full disk here too."""
        store = self.at(state.step)

        def put(folder: Path) -> None:
            write_state(state, folder)
            put_folder(store, folder)

        self._on_disk(put)
        self._prune(state.step, keep)
        return CheckpointStatus(step=state.step, uri=store.uri, time=now())

    def _on_disk(self, work: Callable[[Path], T]) -> T:
        """`work` with an empty folder of this machine, which is gone afterwards; tried again while the disk is full.

        A process has one such folder, always the same: what a kill left of one state makes room for the next.
        """
        folder, patience = self.local / f"rank-{os.environ.get('LOCAL_RANK', '0')}", self.ctx.store.patience

        def once() -> T:
            shutil.rmtree(folder, ignore_errors=True)
            try:
                folder.mkdir(parents=True)
                return work(folder)
            finally:
                shutil.rmtree(folder, ignore_errors=True)

        try:
            return patiently(once, _lacks_room, patience, f"no room for a checkpoint in {self.local}", self.say)
        except Exception as e:
            if not _lacks_room(e):
                raise
            raise StoreUnavailable(
                f"the local disk is full: {self.local} had no room for a checkpoint for {patience:.0f} s: {MAKE_ROOM}"
            ) from e

    def _prune(self, newest: int, keep: int) -> None:
        """Remove what is older than the `keep` committed ones up to `newest`, save the best; each one's manifest first.

        What is of later steps was passed over when training resumed: it must not push out what is good.
        """
        oldest = [step for step in self.committed() if step <= newest][-keep:][0]
        for step in self._steps():
            if step < oldest and step != self.spare():
                store = self.at(step)
                store.delete(sorted(store.keys(), key=lambda key: key != MANIFEST))

    def _steps(self, only: str | None = None) -> list[int]:
        found = set()
        for key in self.ctx.checkpoints.keys():  # noqa: SIM118 a Store is no dict
            if (match := _STEP.match(key)) and (only is None or key == f"{match[0]}{only}"):
                found.add(int(match[1]))
        return sorted(found)
