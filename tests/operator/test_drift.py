"""What counts as a difference between a live object and its manifest."""

from decimal import Decimal

import pytest

from dreambooth_operator import drift
from dreambooth_operator.views import ChildRef


@pytest.mark.parametrize(
    ("live", "wanted"),
    [
        ({"a": 1, "default": 2}, {"a": 1}),
        ({"cpu": "1"}, {"cpu": "1000m"}),
        ({"memory": "1Gi"}, {"memory": "1024Mi"}),
        ({}, {"env": [], "value": "", "labels": {}}),
        ({"list": [{"a": 1, "b": 2}]}, {"list": [{"a": 1}]}),
        ({"replicas": 3}, {"replicas": 3}),
    ],
)
def test_defaults_and_spelling_are_no_difference(live, wanted):
    assert drift.covers(live, wanted)


@pytest.mark.parametrize(
    ("live", "wanted"),
    [
        ({"a": 1}, {"a": 2}),
        ({}, {"a": 1}),
        ({"list": [1, 2]}, {"list": [1]}),
        ({"list": [1]}, {"list": []}),
        ({"cpu": "1"}, {"cpu": "1001m"}),
        ({"a": None}, {"a": {"b": 1}}),
        ({"on": True}, {"on": False}),
    ],
)
def test_a_difference(live, wanted):
    assert not drift.covers(live, wanted)


@pytest.mark.parametrize(("text", "value"), [("500m", "0.5"), ("2", "2"), (3, "3"), ("1Ki", "1024"), ("1e3", "1000")])
def test_quantities(text, value):
    assert drift.quantity(text) == Decimal(value)


@pytest.mark.parametrize("text", ["", "x", "5x", None, True, {}])
def test_no_quantities(text):
    assert drift.quantity(text) is None


def test_an_edited_child_is_applied_again_but_not_for_ever(make):
    manifest = {"kind": "Service", "metadata": {"name": "s"}, "spec": {"a": 1}}
    live = {"kind": "Service", "metadata": {"name": "s", "resourceVersion": "7"}, "spec": {"a": 2}}
    view = make.view(make.job(), live)
    assert drift.needs_apply(view, manifest)
    settled = make.view(make.job(), live, settled=frozenset({(ChildRef("Service", "s"), drift.digest(manifest), "7")}))
    assert not drift.needs_apply(settled, manifest)


def test_a_child_on_its_way_out_is_waited_for(make):
    manifest = {"kind": "Service", "metadata": {"name": "s"}}
    assert drift.needs_apply(make.view(make.job()), manifest)
    assert not drift.needs_apply(make.view(make.job(), leaving=frozenset({ChildRef("Service", "s")})), manifest)


def test_a_job_is_applied_once(make):
    manifest = {"kind": "Job", "metadata": {"name": "j"}, "spec": {"a": 1}}
    live = {"kind": "Job", "metadata": {"name": "j"}, "spec": {"a": 2}}
    assert not drift.needs_apply(make.view(make.job(), live), manifest)
