"""One process at a time."""

import subprocess

from dreambooth_local.locks import alone
from dreambooth_local.places import Places


def test_a_second_process_waits_for_the_first(tmp_path):
    lock = tmp_path / "folder" / "some.lock"
    with alone(lock):
        # Another process by exec: a fork would share this one's lock.
        line = ["flock", "--timeout", "0.2", str(lock), "true"]
        assert subprocess.run(line, check=False).returncode != 0
    assert subprocess.run(line, check=False).returncode == 0


def test_two_clusters_of_one_machine_share_a_lock(tmp_path):
    run = tmp_path / "run"
    one, other = Places(tmp_path / "cache", tmp_path / "state", run), Places(tmp_path / "c", tmp_path / "s", run)
    assert one.lock == other.lock
    assert one.compile_lock != other.compile_lock
