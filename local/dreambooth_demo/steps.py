"""Named, timed steps of a program, said as they happen."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Steps:
    """Says what is under way and keeps how long each step took, in seconds."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._start = time.monotonic()

    def say(self, text: str) -> None:
        """One line, with the seconds since the start."""
        print(f"[{time.monotonic() - self._start:6.1f} s] {text}", flush=True)

    @contextmanager
    def step(self, name: str, text: str) -> Iterator[None]:
        """Time what happens inside as `name`."""
        self.say(f"{text} …")
        begin = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - begin, 1)

    def breakdown(self) -> str:
        """A table of the steps and their sum."""
        rows = [*self.seconds.items(), ("total", round(time.monotonic() - self._start, 1))]
        return "\n".join(f"  {name:<28}{seconds:8.1f} s" for name, seconds in rows)
