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
    begun = time.monotonic()
    fence.open(begun + MARGIN + 3)
    budget = fence.budget(10)
    assert 3 - (time.monotonic() - begun) - 1e-6 <= budget <= 3
    fence.open(time.monotonic() + MARGIN - 0.01)
    with pytest.raises(NotLeading):
        fence.budget(10)
