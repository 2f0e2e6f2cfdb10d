"""Writes end before another replica may begin."""

import time

import pytest

from dreambooth_operator.fence import MARGIN, Fence, NotLeading


def test_a_closed_fence_lets_nothing_through():
    fence = Fence()
    with pytest.raises(NotLeading):
        fence.budget(10)
    fence.open()
    assert fence.budget(10) == 10
    fence.close()
    with pytest.raises(NotLeading):
        fence.budget(10)


def test_a_write_ends_before_the_lease_does():
    fence = Fence()
    fence.open(time.monotonic() + MARGIN + 3)
    assert fence.budget(10) == pytest.approx(3, abs=0.2)
    fence.open(time.monotonic() + MARGIN - 0.01)
    with pytest.raises(NotLeading):
        fence.budget(10)
