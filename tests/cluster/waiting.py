"""Waits for what a cluster will do soon."""

import time
from collections.abc import Callable
from typing import Any

SOON = 40.0


def wait(what: Callable[[], Any], seconds: float = SOON) -> Any:
    """The first true answer of `what`. Raises AssertionError with the last one."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, f"still {found!r} after {seconds} s"
        time.sleep(0.5)
    return found
