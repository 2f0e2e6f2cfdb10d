"""The ranks: who I am, and the few words that ranks exchange beside gradients.

Gradients travel by DDP. The control words (stop, losses for the log, what rank 0 found) go over a gloo group on the
CPU, so that none of them waits for a GPU's queue.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from dreambooth_trainer.faults import SavedOnSigterm

# Rank 0 may draw validation pictures for long while the others wait.
TIMEOUT = timedelta(minutes=30)
# How soon a rank that waits hears of a signal, and rank 0 of theirs, seconds.
POLL = 0.1
_ASKED = "asked to end; what was trained is in the store"
# Set in the ranks' store when one that waits for rank 0 was asked to end.
_STOP = "asked-to-end"
T = TypeVar("T")


@dataclass
class World:
    """This process among the ranks; alone, every exchange is a no-op."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    control: Any = None
    # Where ranks leave words for one another without meeting.
    store: Any = None

    @property
    def leads(self) -> bool:
        """Whether this is rank 0, which speaks to the outside."""
        return self.rank == 0

    def share(self, value: Any) -> Any:
        """Rank 0's value, on every rank."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self.control)
        return box[0]

    def await_lead(self, meanwhile: Callable[[], None]) -> None:
        """Return when rank 0 has come here too. A rank that waits hears signals, and calls `meanwhile` again and again.

        In a collective a process is deaf: Python runs a signal's handler only when the call returns.
        """
        if self.size == 1:
            return
        word: Any = dist.broadcast(torch.zeros(1), src=0, group=self.control, async_op=True)
        while not (self.leads or word.is_completed()):
            meanwhile()
            time.sleep(POLL)
        word.wait()

    def gather(self, values: torch.Tensor) -> list[torch.Tensor]:
        """`values` (on the CPU, of one shape everywhere) of every rank, in their order."""
        if self.size == 1:
            return [values]
        parts = [torch.empty_like(values) for _ in range(self.size)]
        dist.all_gather(parts, values, group=self.control)
        return parts

    def close(self) -> None:
        """Leave."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()


def join(device: str) -> World:
    """Meet the other ranks, as RANK, WORLD_SIZE, LOCAL_RANK and MASTER_* say; alone without them."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return World()
    rank, local = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
    if device == "cuda":
        torch.cuda.set_device(local)
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = dist.TCPStore(address, port, size, is_master=rank == 0, timeout=TIMEOUT)
    backend = "nccl" if device == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
    control = dist.new_group(backend="gloo", timeout=TIMEOUT)
    return World(rank, size, local, control, store)


class StopSignal:
    """SIGTERM, heard by any rank, becomes one step at which all of them stop.

    Outside the steps (`immediate`) nothing is at stake and the process ends at once. In them each rank's flag is
    reduced asynchronously in one step and read in the next, so that agreeing costs no waiting.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.immediate = True
        self.heard = False
        self._flag = torch.zeros(1)
        self._pending: Any = None
        self._before: Any = signal.SIG_DFL

    def listen(self) -> None:
        """Install the handler; only the main thread can."""
        self._before = signal.signal(signal.SIGTERM, self._hear)

    def release(self) -> None:
        """Put the handler of before back."""
        signal.signal(signal.SIGTERM, self._before)

    def _hear(self, _signal: int, _frame: object) -> None:
        self.heard = True
        if self.immediate:
            raise SavedOnSigterm(_ASKED)

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """While it lasts, SIGTERM ends the work by SavedOnSigterm at once, also one that was heard before."""
        try:
            self.immediate = True
            if self.heard:
                raise SavedOnSigterm(_ASKED)
            yield
        finally:
            self.immediate = False

    def led(self, work: Callable[[], T], otherwise: T) -> T:
        """What `work` gives on rank 0, on every rank; `otherwise`, soon, when any of them is asked to end meanwhile."""
        value = otherwise
        if self.world.leads:
            with contextlib.suppress(SavedOnSigterm), self.at_once(), self._peers_heard():
                value = work()
        self.world.await_lead(self._pass_on)
        return self.world.share(value)

    def _pass_on(self) -> None:
        if self.heard:
            self.world.store.set(_STOP, "")

    @contextlib.contextmanager
    def _peers_heard(self) -> Iterator[None]:
        """While it lasts, a signal to another rank counts as one to this one."""
        if self.world.size == 1:
            yield
            return
        done = threading.Event()

        def listen() -> None:
            while not done.wait(POLL):
                if self.world.store.check([_STOP]):
                    os.kill(os.getpid(), signal.SIGTERM)
                    return

        listener = threading.Thread(target=listen, name="peers", daemon=True)
        listener.start()
        try:
            yield
        finally:
            done.set()
            listener.join()

    def agreed(self) -> bool:
        """Whether all ranks stop now; called once a step by every rank."""
        if self.world.size == 1:
            return self.heard
        stop = False
        if self._pending is not None:
            self._pending.wait()
            stop = bool(self._flag.item())
        self._flag = torch.tensor([float(self.heard)])
        self._pending = dist.all_reduce(self._flag, dist.ReduceOp.MAX, group=self.world.control, async_op=True)
        return stop
