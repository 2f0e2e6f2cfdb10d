"""What `benchmarks/control_plane.py --soak` makes of what it saw: it must not overlook a leak, nor see one in noise."""

import pytest

from benchmarks.timed import soak

HOUR = 3600.0
FLAT = {"rssMiB": 120.0, "tasks": 40.0, "files": 30.0, "watches": 25.0}


def figures(**per_hour):
    """Of an hour with a batch every six seconds, in which what is held grows so much; it warms up for ten minutes, and
    open files come and go."""
    samples = [
        {"seconds": t, "jobs": t, **{key: value + per_hour.get(key, 0.0) * t / HOUR for key, value in FLAT.items()}}
        for t in map(float, range(0, int(HOUR), 6))
    ]
    for n, sample in enumerate(samples):
        sample["rssMiB"] += 30.0 * min(1.0, sample["seconds"] / 600) + n % 3
        sample["files"] += n % 4
    return {"unfinished": [], "driverFailures": [], **soak.trends(samples, HOUR)}


def missed(found):
    return [name for name, goal in soak.goals(found).items() if not goal["met"]]


def test_noise_and_warming_up_are_no_leak():
    found = figures()
    assert missed(found) == []
    assert len(found["parts"]) == soak.PARTS
    assert abs(found["rssMiBPerHour"]) < 1


@pytest.mark.parametrize(("key", "per_hour"), [("tasks", 10), ("files", 12), ("watches", 10), ("rssMiB", 30)])
def test_a_leak_is_named(key, per_hour):
    assert missed(figures(**{key: per_hour})) == [f"soak: {key} grown by"]


def test_the_memory_s_slope_is_that_after_the_first_quarter():
    assert figures(rssMiB=60.0)["rssMiBPerHour"] == pytest.approx(60.0, abs=1.0)


def test_what_did_not_end_is_told():
    assert missed({**figures(), "unfinished": ["soak-1-2"]}) == ["soak: jobs and children that did not end"]


def test_a_run_too_short_to_compare_still_tells_what_was_held():
    found = soak.trends([{"seconds": 1.0, "jobs": 10, **FLAT}], 60.0)
    assert found == {"parts": [{"minutes": 0.1, "jobs": 10, **FLAT}]}
