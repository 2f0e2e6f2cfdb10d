"""The lines in front of an engine, with an engine that waits to be told."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from PIL import Image

from dreambooth_server.drawing import Cancelled, Drawing, Refused
from dreambooth_server.queue import Full, Line

ONE = Drawing("base", "a cat", "", 0, 32, 32, 2, 1.0)


def of(model: str, prompt: str = "a cat", steps: int = 2, side: int = 32) -> Drawing:
    return Drawing(model, prompt, "", 0, side, side, steps, 1.0)


@dataclass
class Run:
    drawing: Drawing
    done: int = 0
    fault: Exception | None = None

    @property
    def finished(self) -> bool:
        return self.done == self.drawing.steps


class Slow:
    """Steps when `go` is set; what has one size is drawn together, up to `most`."""

    def __init__(self, most: int = 1) -> None:
        self.go, self.begun, self.most = threading.Event(), threading.Event(), most
        self.drawn: list[Drawing] = []
        self.batches: list[list[str]] = []
        self.held = 0
        self.cost = 0.0
        self.warmed: list[int] = []

    def joins(self, drawing: Drawing, running: Sequence[Run]) -> bool:
        return len(running) < self.most and all(run.drawing.width == drawing.width for run in running)

    def begin(self, drawing: Drawing) -> Run:
        if drawing.prompt == "too much":
            raise Refused("too much")
        self.held += 1
        return Run(drawing)

    def step(self, running: Sequence[Run]) -> None:
        self.begun.set()
        self.go.wait(10)
        time.sleep(self.cost)
        self.batches.append([run.drawing.model for run in running])
        for run in running:
            run.done += 1
            if run.drawing.prompt == "breaks":
                run.fault = Refused("broke")
            if run.drawing.prompt == "breaks all":
                raise ValueError("everything")

    def finish(self, run: Run) -> Image.Image:
        self.drawn.append(run.drawing)
        return Image.new("RGB", (run.drawing.width, run.drawing.height))

    def end(self, run: Run) -> None:
        self.held -= 1

    def warm_up(self) -> None:
        self.warmed.append(len(self.drawn))


@pytest.fixture
def slow() -> Any:
    return Slow()


def test_the_line_is_bounded_and_says_when_to_come_back(slow: Any) -> None:
    line = Line(slow, capacity=2)
    tickets = [line.submit([ONE])]
    slow.begun.wait(5)
    tickets += [line.submit([ONE]) for _ in range(2)]
    with pytest.raises(Full) as full:
        line.submit([ONE])
    assert full.value.retry_after > 0
    slow.go.set()
    assert all(ticket.pictures.result(5) for ticket in tickets)
    line.close()


def test_closing_finishes_what_waits(slow: Any) -> None:
    waited: list[float] = []
    line = Line(slow, 4, waited.append)
    tickets = [line.submit([ONE]) for _ in range(3)]
    threading.Timer(0.1, slow.go.set).start()
    line.close()
    assert all(ticket.pictures.done() for ticket in tickets)
    assert len(waited) == 3
    assert waited[2] > 0.05
    assert slow.held == 0


def test_a_request_fails_alone_whenever_it_fails() -> None:
    slow: Any = Slow(most=4)
    line = Line(slow, 8)
    bad = [line.submit([of("base", prompt), ONE]) for prompt in ("too much", "breaks")]
    good = line.submit([ONE])
    slow.go.set()
    for ticket, why in zip(bad, ("too much", "broke"), strict=True):
        with pytest.raises(Refused, match=why):
            ticket.pictures.result(5)
    assert good.pictures.result(5)
    with pytest.raises(ValueError, match="everything"):
        line.submit([of("base", "breaks all")]).pictures.result(5)
    assert line.submit([ONE]).pictures.result(5)
    line.close()
    assert slow.held == 0


def test_what_nobody_waits_for_is_not_drawn(slow: Any) -> None:
    line = Line(slow, 4)
    running, waiting = line.submit([ONE]), line.submit([ONE])
    slow.begun.wait(5)
    running.abandon()
    waiting.abandon()
    slow.go.set()
    with pytest.raises(Cancelled):
        running.pictures.result(5)
    last = line.submit([ONE])
    assert last.pictures.result(5)
    assert slow.drawn == [ONE]
    line.close()
    assert slow.held == 0


def test_pictures_join_a_running_batch_and_leave_it() -> None:
    slow: Any = Slow(most=3)
    line = Line(slow, 8)
    long = line.submit([of("a", steps=4)])
    slow.begun.wait(5)
    short = [line.submit([of("b")]), line.submit([of("c")])]
    slow.go.set()
    assert all(ticket.pictures.result(5) for ticket in [long, *short])
    line.close()
    assert slow.batches == [["a"], ["a", "b", "c"], ["a", "b", "c"], ["a"]]


def test_the_engine_warms_up_when_nothing_is_drawn_and_not_before_the_first_picture() -> None:
    slow: Any = Slow(most=2)
    line = Line(slow, 8)
    tickets = [line.submit([of("a", steps=4)])]
    slow.begun.wait(5)
    tickets += [line.submit([of("b", steps=4)])]
    slow.go.set()
    assert all(ticket.pictures.result(5) for ticket in tickets)
    line.close()
    assert slow.warmed == [2]


def test_subjects_take_turns() -> None:
    slow: Any = Slow()
    line = Line(slow, 20)
    tickets = [line.submit([of("greedy", steps=1)] * 2) for _ in range(3)]
    slow.begun.wait(5)
    tickets += [line.submit([of(model, steps=1)]) for model in ("x", "y")]
    slow.go.set()
    assert all(ticket.pictures.result(5) for ticket in tickets)
    line.close()
    assert [batch[0] for batch in slow.batches] == ["greedy", "greedy", "x", "y", *["greedy"] * 4]


def test_nobody_overtakes_for_ever_who_fits_better() -> None:
    slow: Any = Slow(most=2)
    line = Line(slow, 8)
    tickets = [line.submit([of("a")])]
    slow.begun.wait(5)
    tickets += [line.submit([of("large", side=64)]), line.submit([of("b")])]
    slow.go.set()
    assert all(ticket.pictures.result(5) for ticket in tickets)
    line.close()
    assert slow.batches == [["a"], ["a"], ["large"], ["large"], ["b"], ["b"]]


def test_no_request_is_taken_on_that_would_wait_too_long(slow: Any) -> None:
    slow.go.set()
    slow.cost = 0.02
    line = Line(slow, 100, patience=0.5)
    line.submit([ONE]).pictures.result(5)
    slow.go.clear()
    taken = 0
    with pytest.raises(Full) as full:  # noqa: PT012  (as many as fit)
        while taken < 100:
            line.submit([ONE])
            taken += 1
    # Two steps of 20 ms or a little more for each.
    assert 4 <= taken <= 14
    assert 1 <= full.value.retry_after < 3
    slow.go.set()
    line.close()


def test_when_it_is_full_whoever_asks_most_gives_way(slow: Any) -> None:
    line = Line(slow, capacity=4)
    running = line.submit([of("greedy")])
    slow.begun.wait(5)
    waiting = [line.submit([of("greedy")]) for _ in range(4)]
    modest = line.submit([of("modest")])
    with pytest.raises(Full):
        waiting[-1].pictures.result(0)
    with pytest.raises(Full):
        line.submit([of("greedy")])
    slow.go.set()
    assert all(ticket.pictures.result(5) for ticket in [running, modest, *waiting[:-1]])
    line.close()


def test_progress_is_told_over_all_pictures(slow: Any) -> None:
    told: list[tuple[int, int]] = []
    slow.go.set()
    line = Line(slow, 4)
    line.submit([of("a", steps=3)] * 2, lambda step, steps: told.append((step, steps))).pictures.result(5)
    line.close()
    assert told == [(0, 3), (1, 3), (1, 3), (2, 3), (2, 3), (3, 3)]
