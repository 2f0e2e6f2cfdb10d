"""Names of children fit Kubernetes' limits, whatever name the user chose."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreambooth_api import names

LABEL = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")
CHILDREN = (names.prepare_job, names.training, names.endpoint)


@given(st.from_regex(names.NAME_PATTERN, fullmatch=True).filter(lambda name: len(name) <= names.MAX_NAME_LENGTH))
def test_children_have_names_that_every_kind_takes(name):
    for child in CHILDREN:
        assert LABEL.fullmatch(child(name))
        # A Job's pod is named <job>-<index>-<5 characters>, its host name <job>-<index>; 256 nodes are the most.
        assert len(f"{child(name)}-255") <= 63
    assert len(names.prepare_job(name)) + 6 <= 63


def test_children_of_one_parent_differ():
    assert len({child("robot") for child in CHILDREN}) == len(CHILDREN)


def test_rank_0_is_found_through_the_headless_service():
    assert names.master_address("robot", "demo") == "robot-train-0.robot-train.demo.svc"


@pytest.mark.parametrize("value", ["demo", "a" * names.MAX_NAME_LENGTH])
def test_a_name_is_a_label_s_value_too(value):
    assert re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?", value)
