"""`make test` divides the tests among worker processes (pytest-xdist): which goes where, and what is told meanwhile."""

from collections import Counter, defaultdict
from collections.abc import Generator, Sequence
from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

# These share one cluster and what they made on it: one worker runs them all, in their order.
ON_THE_CLUSTER = ("tests/cluster/", "tests/local/test_lifecycle.py")

WIDTH = 72


def on_the_cluster(nodeid: str) -> bool:
    """Whether a test needs the one real cluster."""
    return nodeid.startswith(ON_THE_CLUSTER)


def file_of(nodeid: str) -> str:
    """The file that a test is in."""
    return nodeid.partition("::")[0]


def unit_of(nodeid: str) -> str:
    """What a test is run with by one worker: its file, or all tests on the cluster."""
    return "the cluster" if on_the_cluster(nodeid) else file_of(nodeid)


class Scheduling(LoadFileScheduling):
    """Whoever is free takes the next unit."""

    def _split_scope(self, nodeid: str) -> str:
        return unit_of(nodeid)


class LinePerFile:
    """A line for each file once its tests have run, as pytest has it without workers; with them it has but dots."""

    def __init__(self, terminal: Any) -> None:
        self.terminal = terminal
        self.left: Counter[str] = Counter()
        self.letters: defaultdict[str, str] = defaultdict(str)
        self.total = self.ended = 0

    def pytest_xdist_node_collection_finished(self, ids: Sequence[str]) -> None:
        if not self.total:  # the same for every worker
            self.left.update(map(file_of, ids))
            self.total = len(ids)

    @pytest.hookimpl(wrapper=True)
    def pytest_report_teststatus(self, report: Any) -> Generator[None, Any, Any]:
        category, letter, word = yield
        if isinstance(report, pytest.TestReport):
            self.letters[file_of(report.nodeid)] += letter
        return category, "", word

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        file = file_of(nodeid)
        self.left[file] -= 1
        self.ended += 1
        if not self.left[file]:
            self.tell(file)

    def pytest_sessionfinish(self) -> None:
        """What was cut short."""
        for file in sorted(self.letters):
            self.tell(file)

    def tell(self, file: str) -> None:
        text = f"{file} {self.letters.pop(file, '')}"
        *full, last = (text[at : at + WIDTH] for at in range(0, len(text), WIDTH))
        for line in full:
            self.terminal.write_line(line)
        self.terminal.write_line(f"{last:<{WIDTH}} [{100 * self.ended // self.total:3d}%]")
