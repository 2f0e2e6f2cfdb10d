"""Checkpoints scored while training goes on: the best is published, and no end of a process spoils the choice."""

import os
import signal
from dataclasses import replace

import pytest

from dreambooth_api.exits import ExitCode
from dreambooth_trainer import finish, loop, scoring
from dreambooth_trainer.checkpoint import Checkpoints
from dreambooth_trainer.faults import guarded

MEASURE = scoring.measure
SCORED = {
    "scoring": {"dino": "s3://dreambooth/examples/encoder-dino"},
    "checkpoints": {"everySteps": 1, "keep": 1},
    "training": {"steps": 5, "ema": 0.5},
}


def by_plan(monkeypatch: pytest.MonkeyPatch, values: list[float]) -> list[float]:
    """Fidelity goes as `values` say, in the order in which checkpoints are measured; the list is used up."""
    left = list(values)
    monkeypatch.setattr(scoring, "measure", lambda *args: {**MEASURE(*args), "dino": left.pop(0)})
    return left


def test_the_best_checkpoint_is_published_and_outlives_pruning(ready, desk, monkeypatch: pytest.MonkeyPatch) -> None:
    from dreambooth_api.artifact import ModelCard

    ctx, best = ready(**SCORED), ready("best", **{**SCORED, "publish": {"checkpoint": "Last"}})
    by_plan(monkeypatch, [0.1, 0.9, 0.3, 0.2, 0.4])
    told = desk(ctx)
    result = loop.train(ctx, told)
    assert Checkpoints(ctx, print).committed() == [2, 5]
    assert (result.best_checkpoint.step, result.checkpoint.step, result.scores.dino) == (2, 5, "0.900")
    assert told.board.report.scores == result.scores
    card = ctx.store.at(result.artifact.uri.split("/store/")[1]).read("model.json")
    assert ModelCard.model_validate_json(card).trained_steps == 2
    # The very weights of step 2: a run that ends there with the same rate publishes the same content.
    by_plan(monkeypatch, [0.1, 0.2])
    two_steps = best.spec.training.model_copy(update={"steps": 2})
    short = replace(best, spec=best.spec.model_copy(update={"training": two_steps}))
    assert loop.train(short, desk(short)).artifact.digest == result.artifact.digest


def test_early_stop_is_remembered_by_a_restart(ready, desk, monkeypatch: pytest.MonkeyPatch) -> None:
    ctx = ready(**{**SCORED, "scoring": {**SCORED["scoring"], "patience": 2}})
    left = by_plan(monkeypatch, [0.5, 0.4, 0.3])
    first = loop.train(ctx, desk(ctx))
    assert left == []
    assert (first.progress.step, first.best_checkpoint.step) == (3, 1)
    monkeypatch.setattr(loop, "take_step", lambda session: pytest.fail("a step was taken"))
    monkeypatch.setattr(loop, "join", lambda device: pytest.fail("waited for the other ranks"))
    again = loop.train(ctx, desk(ctx))
    assert again.artifact == first.artifact
    assert again.scores == first.scores


def test_a_checkpoint_left_unscored_by_a_kill_is_scored_first(ready, desk, monkeypatch: pytest.MonkeyPatch) -> None:
    from dreambooth_trainer.evaluator import Evaluator

    ctx = ready(**SCORED)
    by_plan(monkeypatch, [0.1, 0.9, 0.3, 0.2, 0.4])
    real = Evaluator.evaluate

    def killed(self):
        if self.session.step == 2:
            raise KeyboardInterrupt
        real(self)

    monkeypatch.setattr(Evaluator, "evaluate", killed)
    with pytest.raises(KeyboardInterrupt):
        loop.train(ctx, desk(ctx))
    assert Checkpoints(ctx, print).committed() == [1, 2]
    monkeypatch.setattr(Evaluator, "evaluate", real)
    assert loop.train(ctx, desk(ctx)).best_checkpoint.step == 2


def test_asked_to_end_while_scoring_and_while_publishing(
    ready, desk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Thrice, each a process's end: no step is taken twice, nothing is measured twice, the same is published."""
    spec = {**SCORED, "checkpoints": {"everySteps": 1, "keep": 9}}
    straight, ended = ready("straight", **spec), ready("ended", **spec)
    by_plan(monkeypatch, [0.1, 0.2, 0.9, 0.3, 0.2])
    expected = loop.train(straight, desk(straight))
    left = by_plan(monkeypatch, [0.1, 0.2, 0.9, 0.3, 0.2])
    taken, step = [], loop.take_step
    monkeypatch.setattr(loop, "take_step", lambda session: (taken.append(session.step), step(session))[1])
    before = signal.getsignal(signal.SIGTERM)
    for module, name, call, done in (
        (scoring, "measure", 2, 2),  # of the checkpoint of step 2
        (scoring, "measure", 4, 5),  # of the last one
        (finish, "publish", 1, 5),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, evicted(getattr(module, name), call))
            assert guarded(lambda: loop.train(ended, desk(ended))) == ExitCode.SAVED_ON_SIGTERM
        assert signal.getsignal(signal.SIGTERM) is before
        assert taken == list(range(done))
        assert Checkpoints(ended, print).committed()[-1] == done
        assert "asked to end" in capsys.readouterr().err
    result = loop.train(ended, desk(ended))
    assert (taken, left) == (list(range(5)), [])
    assert (result.best_checkpoint.step, result.artifact.digest) == (3, expected.artifact.digest)
    assert result.scores == expected.scores


def evicted(real, call: int):
    """`real`, in whose call of that number SIGTERM arrives."""
    calls = []

    def function(*args):
        calls.append(1)
        if len(calls) == call:
            os.kill(os.getpid(), signal.SIGTERM)
            pytest.fail("it went on")
        return real(*args)

    return function


def test_asked_to_end_in_the_last_step(ready, desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scoring and publishing may take longer than there is time: they are the restart's."""
    ctx, step = ready(), loop.take_step

    def evicted(session):
        if session.step == session.plan.steps - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(session)

    monkeypatch.setattr(loop, "take_step", evicted)
    assert guarded(lambda: loop.train(ctx, desk(ctx))) == ExitCode.SAVED_ON_SIGTERM
    assert Checkpoints(ctx, print).committed() == [2, 4]
    monkeypatch.setattr(loop, "take_step", lambda session: pytest.fail("a step was taken"))
    assert loop.train(ctx, desk(ctx)).artifact is not None
