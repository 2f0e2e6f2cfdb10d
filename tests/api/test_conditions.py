"""The transition time of a condition moves only when its status does."""

import re

from dreambooth_api.conditions import Condition, now, set_condition

EARLIER, LATER = "2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z"


def _condition(kind: str, status: str, time: str, reason: str = "Running") -> Condition:
    return Condition(type=kind, status=status, last_transition_time=time, reason=reason, observed_generation=1)


def test_a_new_type_is_added_at_the_end():
    old = [_condition("Complete", "False", EARLIER)]
    assert [c.type for c in set_condition(old, _condition("Failed", "False", LATER))] == ["Complete", "Failed"]


def test_the_time_stays_while_the_status_does_and_the_rest_is_renewed():
    old = [_condition("Complete", "False", EARLIER)]
    (new,) = set_condition(old, _condition("Complete", "False", LATER, reason="Suspended"))
    assert (new.last_transition_time, new.reason) == (EARLIER, "Suspended")


def test_the_time_moves_with_the_status():
    (new,) = set_condition([_condition("Complete", "False", EARLIER)], _condition("Complete", "True", LATER))
    assert new.last_transition_time == LATER


def test_what_was_given_is_not_changed():
    old = [_condition("Complete", "False", EARLIER)]
    set_condition(old, _condition("Complete", "True", LATER))
    assert old == [_condition("Complete", "False", EARLIER)]


def test_time_is_written_as_kubernetes_writes_it():
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", now())
