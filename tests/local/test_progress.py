"""Steps side by side: their order, what is said, what happens when one fails."""

import io
import json
import threading
import time

import pytest

from dreambooth_local.progress import Progress, Step, StepFailed, heartbeat, ready


def nothing() -> None:
    """A step that has nothing to do."""


def names(steps):
    return [step.name for step in steps]


def test_a_step_is_ready_once_all_before_it_are_done():
    steps = [Step("a", nothing), Step("b", nothing, ["a"]), Step("c", nothing, ["a", "b"])]
    assert names(ready(steps, set(), set())) == ["a"]
    assert names(ready(steps, {"a"}, set())) == []
    assert names(ready(steps, {"a"}, {"a"})) == ["b"]
    assert names(ready(steps, {"a", "b"}, {"a", "b"})) == ["c"]


def test_a_name_that_is_no_step_counts_as_done():
    assert names(ready([Step("b", nothing, ["elsewhere"])], set(), set())) == ["b"]


def test_the_heartbeat_names_what_runs_and_for_how_long():
    assert heartbeat(40.2, {"b": 88.0, "a": 62.0}, 100.0) == "… 40 s: a (38 s), b (12 s)"


def test_steps_keep_their_order_and_their_seconds():
    seen = []
    progress = Progress(io.StringIO())
    progress.run([Step("b", lambda: seen.append("b"), ["a"]), Step("a", lambda: seen.append("a"))])
    assert seen == ["a", "b"]
    assert list(progress.breakdown()) == ["a", "b", "total"]


def test_independent_steps_run_at_the_same_time():
    meeting = threading.Barrier(2, timeout=5)  # passed only when both are there

    def meet() -> None:
        meeting.wait()

    Progress(io.StringIO()).run([Step("a", meet), Step("b", meet)])


def test_a_heartbeat_is_printed_while_a_step_takes_long():
    out = io.StringIO()
    Progress(out, every=0.05).run([Step("slow", lambda: time.sleep(0.2))])
    assert "s: slow (" in out.getvalue()


def test_after_a_failure_nothing_new_begins_and_what_ran_ends():
    seen = []

    def fail() -> None:
        raise ValueError("no more disk")

    def long() -> None:
        time.sleep(0.1)
        seen.append("long")

    steps = [Step("bad", fail), Step("long", long), Step("later", lambda: seen.append("later"), ["bad"])]
    with pytest.raises(StepFailed, match="bad: no more disk") as failure:
        Progress(io.StringIO()).run(steps)
    assert isinstance(failure.value.__cause__, ValueError)
    assert seen == ["long"]


def test_the_note_of_a_step_is_said():
    out = io.StringIO()
    Progress(out).run([Step("base", lambda: "cached")])
    assert "✓ base: 0.0 s (cached)" in out.getvalue()


def test_breakdowns_are_kept_side_by_side(tmp_path):
    for what in ("up", "images"):
        Progress(io.StringIO()).write(tmp_path / "timings.json", what)
    assert set(json.loads((tmp_path / "timings.json").read_text())) == {"up", "images"}
