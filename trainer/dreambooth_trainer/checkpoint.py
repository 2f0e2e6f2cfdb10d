"""The whole state of a training in the store: crash-safe and verified.

A checkpoint is a folder `step-NNNNNN` with weights, optimizer, average (all safetensors) and `state.json`, and its
manifest last. The newest valid one wins; older ones are pruned only after a newer one is committed.
"""

import json
import re
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from dreambooth_api import layout
from dreambooth_api.conditions import now
from dreambooth_api.job import CheckpointStatus
from dreambooth_api.names import MANIFEST
from dreambooth_trainer.context import Context
from dreambooth_trainer.faults import CheckpointsCorrupt
from dreambooth_trainer.manifests import CorruptFolder, get_folder, put_folder
from dreambooth_trainer.patience import is_disk_full, patiently
from dreambooth_trainer.store import Store

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
    # Of tensors on a GPU: the event after which they are as this step left them.
    ready: Any = None


def write_state(state: State, folder: Path) -> None:
    """Write `state` as files of a new folder."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
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
    from safetensors.torch import load_file

    facts = json.loads((folder / STATE).read_text(encoding="utf-8"))
    ema = folder / "ema.safetensors"
    return State(
        step=facts["step"],
        samples=facts["samples"],
        fingerprint=facts["fingerprint"],
        world_size=facts["worldSize"],
        weights=load_file(folder / "weights.safetensors"),
        optimizer=_join(load_file(folder / "optimizer.safetensors"), facts["optimizer"]),
        ema=load_file(ema) if ema.is_file() else {},
        scaler=facts["scaler"],
        unsent=[(step, values, stamp) for step, values, stamp in facts["unsent"]],
    )


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
        """The state of one step, verified. Raises CorruptFolder."""
        folder = self.local / f"load-{step}-{threading.get_native_id()}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            get_folder(self.at(step), folder)
            return read_state(folder)
        except (ValueError, KeyError, OSError) as e:
            raise CorruptFolder(f"{self.at(step).uri} holds no training state: {e}") from e
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def commit(self, state: State, keep: int) -> CheckpointStatus:
        """Write, upload, commit; then prune all but the `keep` newest."""
        folder = self.local / f"save-{state.step}"
        store = self.at(state.step)

        def write() -> None:
            shutil.rmtree(folder, ignore_errors=True)
            write_state(state, folder)

        try:
            patiently(write, is_disk_full, store.patience, "the local disk", self.say)
            put_folder(store, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        self._prune(keep)
        return CheckpointStatus(step=state.step, uri=store.uri, time=now())

    def _prune(self, keep: int) -> None:
        """Remove what is older than the `keep` newest committed, save the best; each one's manifest first."""
        oldest = self.committed()[-keep:][0]
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
