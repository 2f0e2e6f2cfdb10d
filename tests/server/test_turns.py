"""Whose turn it is, and who gives way."""

from dataclasses import dataclass

from dreambooth_server.turns import Turns


@dataclass(eq=False)
class One:
    subject: str
    cost: float = 1.0


def line_of(*ones: One) -> Turns[One]:
    turns: Turns[One] = Turns()
    for one in ones:
        turns.add(one)
    return turns


def test_subjects_take_turns_each_in_its_own_order() -> None:
    turns = line_of(*(One(subject) for subject in "aaabbc"))
    served = []
    while (one := turns.first()) is not None:
        served.append(one.subject)
        turns.served(one, through=True)
    assert "".join(served) == "abcaba"
    assert len(turns) == 0


def test_one_with_several_pictures_keeps_its_place_in_its_own_line() -> None:
    first, second, other = One("a"), One("a"), One("b")
    turns = line_of(first, second, other)
    turns.served(first, through=False)
    assert turns.first() is other
    turns.served(other, through=True)
    assert turns.first() is first
    assert list(turns) == [first, second]


def test_who_asks_most_gives_way_and_never_to_its_own_loss() -> None:
    last = One("a", 2.0)
    turns = line_of(One("a", 2.0), One("a", 2.0), last, One("b", 2.0))
    assert turns.displaced_by(One("c", 2.0)) is last
    for newcomer in (One("c", 5.0), One("a", 0.1), One("b", 3.0)):
        assert turns.displaced_by(newcomer) is newcomer
    alone = One("a")
    assert line_of().displaced_by(alone) is alone
