"""Waits for what a cluster will do soon. Not too closely: each look by kubectl takes a good part of a second of a core,
and not too briefly: other tests may be at work beside this one."""

import time
from collections.abc import Callable
from typing import Any

SOON = 90.0


def wait(what: Callable[[], Any], seconds: float = SOON) -> Any:
    """The first true answer of `what`. Raises AssertionError with the last one."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, f"still {found!r} after {seconds} s"
        time.sleep(1)
    return found
