"""Whose turn it is: subjects take turns, picture by picture, and whoever asks most waits behind the others."""

from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar


class Waits(Protocol):
    """What stands in a line."""

    @property
    def subject(self) -> str:
        """Who it is for."""

    @property
    def cost(self) -> float:
        """Work that is left to begin, in any unit."""


T = TypeVar("T", bound=Waits)


@dataclass
class Turns(Generic[T]):
    """Lines, one for each subject that has something waiting; the first line has the turn."""

    _lines: OrderedDict[str, deque[T]] = field(default_factory=OrderedDict)

    def __len__(self) -> int:
        return sum(len(line) for line in self._lines.values())

    def __iter__(self) -> Iterator[T]:
        return (one for line in self._lines.values() for one in line)

    def add(self, one: T) -> None:
        """Join the end of its subject's line."""
        self._lines.setdefault(one.subject, deque()).append(one)

    def first(self) -> T | None:
        """Whose turn it is."""
        return next(iter(self._lines.values()))[0] if self._lines else None

    def served(self, one: T, through: bool) -> None:
        """`one` had its turn: its subject's next comes after the other subjects'; `through`: it waits no more."""
        self._lines.move_to_end(one.subject)
        if through:
            self.remove(one)

    def remove(self, one: T) -> None:
        """Leave the line."""
        line = self._lines[one.subject]
        line.remove(one)
        if not line:
            del self._lines[one.subject]

    def displaced_by(self, newcomer: T) -> T:
        """Who must go when there is no room: the last of the subject that asks for most, or the newcomer itself."""
        asked = {subject: sum(one.cost for one in line) for subject, line in self._lines.items()}
        greediest = max(asked, key=lambda subject: asked[subject], default=newcomer.subject)
        mine = asked.get(newcomer.subject, 0.0) + newcomer.cost
        if greediest == newcomer.subject:
            return newcomer
        last = self._lines[greediest][-1]
        # Only when that leaves the other with no less than the newcomer's subject gets.
        return last if asked[greediest] - last.cost >= mine else newcomer
