import signal
import subprocess
import sys

import pytest

from dreambooth_trainer import launch
from dreambooth_trainer.launch import rank_environments, watch


def rank(code: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", f"import os, signal, sys, time\n{code}"])


def test_environments_of_the_second_node() -> None:
    env = {"PET_NNODES": "2", "PET_NPROC_PER_NODE": "3", "PET_NODE_RANK": "1"}
    made = rank_environments(env | {"PET_MASTER_ADDR": "a", "PET_MASTER_PORT": "9"})
    assert [(e["RANK"], e["LOCAL_RANK"]) for e in made] == [("3", "0"), ("4", "1"), ("5", "2")]
    shared = {(e["WORLD_SIZE"], e["MASTER_ADDR"], e["MASTER_PORT"], e["GROUP_RANK"]) for e in made}
    assert shared == {("6", "a", "9", "1")}


def test_the_first_failure_is_the_result() -> None:
    assert watch([rank("sys.exit(67)"), rank("time.sleep(1.5); sys.exit(76)"), rank("time.sleep(0.2)")]) == 67


def test_all_well() -> None:
    assert watch([rank(""), rank("time.sleep(0.2)")]) == 0


def test_death_by_signal_is_a_failure() -> None:
    assert watch([rank("os.kill(os.getpid(), signal.SIGKILL)"), rank("")]) == 137


def test_a_dead_rank_takes_one_that_hangs_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "GRACE", 0.5)
    hanging = rank("signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(3600)")
    assert watch([rank("sys.exit(75)"), hanging]) == 75
    assert hanging.returncode == -signal.SIGKILL


def test_a_rank_that_still_saves_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "GRACE", 0.2)
    saving = rank("time.sleep(1.5); sys.exit(77)")
    assert watch([rank("sys.exit(77)"), saving]) == 77
    assert saving.returncode == 77
