"""The line in front of an engine, with an engine that waits to be told."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from PIL import Image

from dreambooth_server.drawing import Cancelled, Drawing, Refused
from dreambooth_server.queue import Full, Line

ONE = Drawing("base", "a cat", "", 0, 32, 32, 1, 1.0)


class Slow:
    """Draws when `go` is set; notices when nobody waits any more."""

    def __init__(self) -> None:
        self.go, self.begun = threading.Event(), threading.Event()
        self.drawn: list[Drawing] = []

    def draw(self, drawings: Sequence[Drawing], stop: Callable[[], bool] = lambda: False) -> list[Image.Image]:
        self.begun.set()
        while not self.go.wait(0.01):
            if stop():
                raise Cancelled
        if drawings[0].prompt == "too much":
            raise Refused("too much")
        self.drawn += drawings
        return [Image.new("RGB", (d.width, d.height)) for d in drawings]


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


def test_a_request_fails_alone(slow: Any) -> None:
    slow.go.set()
    line = Line(slow, 4)
    bad = line.submit([Drawing("base", "too much", "", 0, 32, 32, 1, 1.0)])
    good = line.submit([ONE])
    with pytest.raises(Refused, match="too much"):
        bad.pictures.result(5)
    assert good.pictures.result(5)
    line.close()


def test_what_nobody_waits_for_is_not_drawn(slow: Any) -> None:
    line = Line(slow, 4)
    running, waiting = line.submit([ONE]), line.submit([ONE])
    slow.begun.wait(5)
    running.abandon()
    waiting.abandon()
    with pytest.raises(Cancelled):
        running.pictures.result(5)
    slow.go.set()
    last = line.submit([ONE])
    assert last.pictures.result(5)
    assert slow.drawn == [ONE]
    line.close()


def test_the_estimate_follows_the_work(slow: Any) -> None:
    slow.go.set()
    line = Line(slow, 4)
    for _ in range(20):
        line.submit([ONE]).pictures.result(5)
    time.sleep(0.05)
    slow.go.clear()
    line.submit([ONE])
    with pytest.raises(Full) as full:  # noqa: PT012  (the line drains by one ticket while it is filled)
        for _ in range(6):
            line.submit([ONE])
    assert full.value.retry_after < 2
    slow.go.set()
    line.close()
