"""What is committed is the state of its step, though training goes on while it is copied."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dreambooth_trainer.checkpoint import Checkpoints, State
from dreambooth_trainer.context import Context
from dreambooth_trainer.faults import StoreUnavailable
from dreambooth_trainer.writer import Writer


@pytest.fixture
def checkpoints(context: Callable[..., Context], small_job, tmp_path: Path) -> Checkpoints:
    return Checkpoints(context(small_job(), tmp_path), print)


def state(step: int, weight: torch.Tensor) -> State:
    optimizer = {"state": {0: {"exp_avg": weight * 2}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    return State(step, step, "f", 1, {"w": weight}, optimizer)


def test_states_are_committed_in_order_and_what_waits_is_bounded(checkpoints: Checkpoints) -> None:
    committed = []
    with Writer(checkpoints, keep=2, on_commit=lambda status: committed.append(status.step)) as writer:
        for step in (1, 2, 3, 4):
            writer.save(lambda step=step: state(step, torch.full((3, 2), float(step))))
    assert committed == [1, 2, 3, 4]
    assert checkpoints.committed() == [3, 4]
    assert list(checkpoints.local.iterdir()) == []


def test_a_state_is_of_its_step_however_soon_training_changes_it(checkpoints: Checkpoints) -> None:
    """The optimizer's hook is what the loop installs; steps follow at once, in place, on large tensors."""
    weight = torch.nn.Parameter(torch.zeros(3_000_000))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    with Writer(checkpoints, keep=9, on_commit=lambda status: None) as writer:
        optimizer.register_step_pre_hook(lambda *_: writer.settle())
        for step in range(1, 7):
            weight.grad = torch.full_like(weight, -1.0)
            optimizer.step()
            if step % 2 == 0:
                writer.save(lambda step=step: state(step, weight))
    for step in (2, 4, 6):
        saved = checkpoints.load(step)
        assert torch.equal(saved.weights["w"], torch.full((3_000_000,), float(step)))


def test_training_waits_only_for_a_copy(checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that takes its time costs training nothing until two states are under way."""
    stalls, weight, commit = [], torch.ones(100), checkpoints.commit

    def slow(state: State, keep: int):
        time.sleep(0.4)
        return commit(state, keep)

    monkeypatch.setattr(checkpoints, "commit", slow)
    with Writer(checkpoints, keep=2, on_commit=lambda status: None, on_stall=stalls.append) as writer:
        for step in (1, 2, 3):
            writer.save(lambda step=step: state(step, weight))
            writer.settle()
    assert max(stalls[:2]) < 0.2
    assert stalls[2] > 0.2


def test_a_store_that_is_gone_is_heard_of_in_training(checkpoints: Checkpoints) -> None:
    ctx = checkpoints.ctx
    ctx.checkpoints.root.parent.mkdir(parents=True)  # type: ignore[attr-defined]
    ctx.checkpoints.root.write_text("in the way")  # type: ignore[attr-defined]
    with pytest.raises(StoreUnavailable), Writer(checkpoints, keep=2, on_commit=lambda status: None) as writer:
        writer.save(lambda: state(1, torch.ones(2)))


def test_a_store_that_is_gone_ends_training_at_its_next_step(checkpoints: Checkpoints, monkeypatch) -> None:
    """Not at the next checkpoint: what is trained until then would be lost."""

    def gone(state: State, keep: int):
        raise StoreUnavailable

    monkeypatch.setattr(checkpoints, "commit", gone)
    writer = Writer(checkpoints, keep=2, on_commit=lambda status: None)
    writer.save(lambda: state(1, torch.ones(2)))
    deadline = time.monotonic() + 20
    while writer._error is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    with pytest.raises(StoreUnavailable):
        writer.settle()
    with pytest.raises(StoreUnavailable):
        writer.close()


def test_a_fault_of_training_keeps_what_was_saved_before_it(checkpoints: Checkpoints) -> None:
    def spoilt() -> None:
        with Writer(checkpoints, keep=2, on_commit=lambda status: None) as writer:
            writer.save(lambda: state(1, torch.ones(2)))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        spoilt()
    assert checkpoints.committed() == [1]
