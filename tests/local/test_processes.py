"""Daemons, tried with real processes."""

import json
import os
import signal
import subprocess
import time

import pytest

from dreambooth_local import processes
from dreambooth_local.processes import Daemons, parse_start_time, start_time, within


@pytest.fixture
def daemons(tmp_path):
    made = Daemons(tmp_path)
    yield made
    for name in ("one", "two"):
        made.end(name)


def eventually(check, seconds=5):
    """Whether `check` comes true in time."""
    deadline = time.monotonic() + seconds
    while not check() and time.monotonic() < deadline:
        time.sleep(0.01)
    return check()


def test_a_daemon_is_started_once_recognised_and_ended(daemons, tmp_path):
    assert daemons.pid("one") is None
    assert daemons.ensure("one", ["sleep", "600"]) is True
    pid = daemons.pid("one")
    # The kernel shows a new program's environment a moment after exec.
    assert eventually(lambda: pid in processes.marked(tmp_path))
    assert daemons.ensure("one", ["sleep", "600"]) is False
    assert Daemons(tmp_path).pid("one") == pid  # another process finds it by the record
    daemons.end("one")
    assert daemons.pid("one") is None
    assert start_time(pid) is None
    assert processes.marked(tmp_path) == []


def test_another_command_line_restarts_it(daemons):
    daemons.ensure("one", ["sleep", "600"])
    before = daemons.pid("one")
    assert daemons.ensure("one", ["sleep", "601"]) is True
    assert daemons.pid("one") not in (None, before)
    assert start_time(before) is None


def test_a_killed_daemon_is_started_again(daemons):
    daemons.ensure("one", ["sleep", "600"])
    before = daemons.pid("one")
    os.kill(before, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while daemons.pid("one") is not None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert daemons.ensure("one", ["sleep", "600"]) is True
    assert daemons.pid("one") != before


def test_a_number_that_another_program_got_since_is_not_ours_and_is_not_ended(daemons):
    daemons.ensure("one", ["sleep", "600"])
    real = daemons.pid("one")
    record = json.loads(daemons.record("one").read_text())
    daemons.record("one").write_text(json.dumps({**record, "started": "1"}))
    assert daemons.pid("one") is None
    daemons.end("one")
    assert start_time(real) is not None
    processes.end([real], 0)


def test_one_that_ignores_sigterm_is_killed(daemons, tmp_path):
    line = f"trap '' TERM; touch {tmp_path}/armed; while :; do sleep 0.05; done"
    daemons.ensure("two", ["sh", "-c", line])
    deadline = time.monotonic() + 5
    while not (tmp_path / "armed").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    pid = daemons.pid("two")
    daemons.end("two", seconds=0.3)
    assert start_time(pid) is None


def test_last_words_are_the_end_of_the_log(daemons):
    daemons.ensure("one", ["sh", "-c", "seq 1 20"])
    deadline = time.monotonic() + 5
    while "20" not in daemons.last_words("one") and time.monotonic() < deadline:
        time.sleep(0.02)
    assert daemons.last_words("one", 2) == "19\n20"
    assert daemons.last_words("two") == ""


def test_the_mark_of_another_state_folder_is_not_ours(tmp_path):
    other = {**os.environ, processes.MARK: f"{tmp_path}-other"}
    with subprocess.Popen(["sleep", "600"], env=other) as sleeper:
        try:
            assert sleeper.pid not in processes.marked(tmp_path)
        finally:
            sleeper.kill()


def test_the_start_time_survives_a_name_with_brackets_and_a_zombie_has_none():
    tail = "S " + " ".join(str(n) for n in range(4, 30))
    assert parse_start_time(f"7 (a) b) {tail}") == "22"
    assert parse_start_time(f"7 (a) {tail.replace('S', 'Z', 1)}") is None


def test_a_control_group_is_recognised_at_and_below_its_name():
    assert within("4:memory:/dreambooth/kubepods/pod1\n", "dreambooth")
    assert within("0::/dreambooth\n", "dreambooth")
    assert not within("0::/dreambooth-other\n0::/user/dreambooth\n", "dreambooth")
