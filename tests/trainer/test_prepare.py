import json
from pathlib import Path

import pytest

from dreambooth_trainer import prepare as module
from dreambooth_trainer.faults import SpecFault
from dreambooth_trainer.prepare import read_prepared

SCORING = {"dino": "s3://dreambooth/examples/encoder-dino"}


def test_what_was_found_is_left_for_train(ready, context, small_job, tmp_path: Path) -> None:
    ctx = ready(scoring=SCORING)
    found = read_prepared(ctx)
    assert found.base_digest.startswith("sha256:")
    assert set(found.base_scores) == {"dino", "pres", "div"}
    assert -1 <= found.base_scores["dino"] <= 1
    with pytest.raises(SpecFault, match="run `prepare` first"):
        read_prepared(context(small_job(), tmp_path / "nothing"))


def test_said_again_nothing_is_drawn_until_something_changed(ready, prepare, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    ctx = ready(scoring=SCORING)
    before = ctx.job_store.read("prepared.json")
    scored: list[int] = []
    real = module.score_base
    monkeypatch.setattr(module, "score_base", lambda *args: scored.append(1) or real(*args))
    result = prepare(ctx)
    assert result.prior.reused == result.prior.images == 4
    assert ctx.job_store.read("prepared.json") == before
    assert scored == []
    validation = ctx.spec.validation.model_copy(update={"prompts": ["a {identifier} {className}"]})
    prepare(replace(ctx, spec=ctx.spec.model_copy(update={"validation": validation})))
    assert scored == [1]


def test_the_result_names_what_went_in(ready, prepare) -> None:
    ctx = ready()
    result = prepare(ctx)
    assert (result.kind, result.images) == ("Prepared", 5)
    assert result.dataset_digest == json.loads(ctx.job_store.read("prepared.json"))["dataset_digest"]


def test_an_identifier_that_the_base_cannot_read_whole(ready) -> None:
    with pytest.raises(SpecFault, match=r"only \d+ tokens are read"):
        ready(subject={"identifier": "qz" * 14})
