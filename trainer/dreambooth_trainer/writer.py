"""States on their way to the store: copied beside the training, committed by a thread.

What is trained changes only in an optimizer's step. So a state is copied while the next step computes its gradients,
into memory that is used again, and training waits (`settle`) only if that is not done when the optimizer would change
it. Files, hashes and uploads are a second thread's; a fault of theirs ends the training at its next step. Memory: two
copies of the state; disk: one.
"""

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dreambooth_api.job import CheckpointStatus
from dreambooth_trainer.checkpoint import Checkpoints, State

# One is filled while the other is on its way.
COPIES = 2


class Buffers:
    """The memory of one copy, used again by the next one of the same shapes; page-locked for a GPU's state."""

    def __init__(self) -> None:
        self._kept: dict[str, Tensor] = {}
        self._stream: Any = None
        # When the copies of a GPU's tensors are done.
        self.event: Any = None

    def copy(self, state: State) -> State:
        """`state` with every tensor copied to the CPU; a GPU's copies are only issued: wait for `event`."""
        if state.copied:
            return state
        on_gpu = any(tensor.is_cuda for tensor in state.weights.values())
        if not on_gpu:
            return self._copy(state)
        self._stream = self._stream or torch.cuda.Stream()
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(state.ready)
            copied = self._copy(state)
            self.event = self._stream.record_event()
        return copied

    def _copy(self, state: State) -> State:
        parts = {name: self._take(name, getattr(state, name)) for name in ("weights", "optimizer", "ema")}
        return replace(state, **parts)

    def _take(self, path: str, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self._tensor(path, value.detach())
        if isinstance(value, dict):
            return {key: self._take(f"{path}.{key}", inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self._take(f"{path}.{i}", inner) for i, inner in enumerate(value))
        return value

    def _tensor(self, path: str, tensor: Tensor) -> Tensor:
        kept = self._kept.get(path)
        if kept is None or kept.shape != tensor.shape or kept.dtype != tensor.dtype:
            kept = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
            self._kept[path] = kept
        return kept.copy_(tensor, non_blocking=True)


class Writer:
    """Commits states in order; training waits only when the store is two states behind."""

    def __init__(
        self,
        checkpoints: Checkpoints,
        keep: int,
        on_commit: Callable[[CheckpointStatus], None],
        on_stall: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        """`on_commit` hears of each checkpoint, `on_stall` how long training waited for one, seconds."""
        self._checkpoints, self._keep = checkpoints, keep
        self._on_commit, self._on_stall = on_commit, on_stall
        self._copying: tuple[Future[State], Buffers] | None = None
        self._stalled = 0.0
        self._error: BaseException | None = None
        self._copier = ThreadPoolExecutor(1, thread_name_prefix="checkpoint-copy")
        self._free: queue.Queue[Buffers] = queue.Queue()
        for _ in range(COPIES):
            self._free.put(Buffers())
        self._queue: queue.Queue[tuple[Future[State], Buffers] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._work, name="checkpoints", daemon=True)
        self._thread.start()

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """What was saved is committed whatever ended the training; its own fault is the one to be told."""
        with contextlib.suppress(*([Exception] if kind else [])):
            self.close()

    def save(self, state: Callable[[], State]) -> None:
        """Commit `state()` soon: call `settle` before what it reads changes. Raises what an earlier one ended with."""
        began = time.perf_counter()
        self._await_copy()
        buffers = self._free.get()
        if self._error is not None:
            self._free.put(buffers)
            raise self._error
        self._copying = self._copier.submit(lambda: buffers.copy(state())), buffers
        self._queue.put(self._copying)
        self._stalled = time.perf_counter() - began

    def settle(self) -> None:
        """Return when the last state is copied, so that its tensors may change. Raises what a commit ended with."""
        self._await_copy()
        if self._error is not None:
            raise self._error

    def _await_copy(self) -> None:
        if self._copying is None:
            return
        began = time.perf_counter()
        (future, buffers), self._copying = self._copying, None
        # A failure is the committing thread's to tell.
        future.exception()
        if buffers.event is not None:
            torch.cuda.current_stream().wait_event(buffers.event)
        self._on_stall(self._stalled + time.perf_counter() - began)

    def close(self) -> None:
        """Commit what is left, end the threads. Raises what went wrong."""
        self._await_copy()
        self._queue.put(None)
        self._thread.join()
        self._copier.shutdown()
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            future, buffers = item
            try:
                state = future.result()
                if self._error is None:
                    if buffers.event is not None:
                        buffers.event.synchronize()
                    self._on_commit(self._checkpoints.commit(state, self._keep))
            except Exception as error:  # This thread's edge: the training thread raises it.
                self._error = error
            finally:
                self._free.put(buffers)
