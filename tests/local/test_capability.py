"""What is said about a machine that can hold no cluster."""

from dataclasses import replace

import pytest

from dreambooth_local.capability import Machine, capable, reasons

GOOD = Machine(
    system="Linux",
    root=True,
    go=True,
    programs_missing=True,
    debian=True,
    packages_missing=True,
    overlay=True,
    free_bytes=50e9,
    images_cached=False,
)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"system": "Darwin"}, "Darwin, not Linux"),
        ({"root": False}, "not root"),
        ({"go": False}, "no Go"),
        ({"debian": False}, "no apt-get"),
        ({"overlay": False}, "overlay"),
        ({"free_bytes": 3e9}, "only 3 GB"),
    ],
)
def test_each_lack_is_named(change, said):
    (reason,) = reasons(replace(GOOD, **change))
    assert said in reason


def test_several_lacks_are_all_named():
    assert len(reasons(replace(GOOD, root=False, go=False, overlay=False))) == 3


@pytest.mark.parametrize(
    "change",
    [
        {"go": False, "programs_missing": False},
        {"debian": False, "packages_missing": False},
        {"free_bytes": 3e9, "images_cached": True},
    ],
)
def test_what_is_there_already_need_not_be_made(change):
    assert reasons(replace(GOOD, **change)) == []


def test_capable_speaks_of_the_machine_that_it_is_given():
    assert capable(GOOD) == []
    assert capable(replace(GOOD, root=False)) == reasons(replace(GOOD, root=False))
