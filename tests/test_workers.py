"""How the tests are divided, and what is told of them: by pytest itself, run on a few files."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.workers import unit_of

ROOT = Path(__file__).parents[1]
FILES = {
    "tests/a/test_one.py": "def test_good(): pass\ndef test_bad(): assert 0\n",
    "tests/a/test_two.py": "import pytest\n@pytest.mark.parametrize('n', range(90))\ndef test_many(n): pass\n",
    "tests/conftest.py": (
        "from tests.workers import LinePerFile, Scheduling\n"
        "def pytest_sessionstart(session):\n"
        "    manager = session.config.pluginmanager\n"
        "    if not hasattr(session.config, 'workerinput'):\n"
        "        manager.register(LinePerFile(manager.getplugin('terminalreporter')))\n"
        "def pytest_xdist_make_scheduler(config, log): return Scheduling(config, log)\n"
    ),
    "pytest.ini": "[pytest]\naddopts = --import-mode=importlib\n",
}


@pytest.fixture
def run(tmp_path: Path):
    """`run("-n", "2")`: pytest on FILES."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "tests/workers.py").symlink_to(ROOT / "tests/workers.py")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
        return subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)

    return run


def test_a_line_tells_of_each_file_and_the_rest_is_as_ever(run) -> None:
    done = run("-n", "2")
    assert done.returncode == 1
    assert "tests/a/test_one.py .F " in done.stdout
    assert f"tests/a/test_two.py {'.' * 52}\n{'.' * 38} " in done.stdout
    assert done.stdout.count("[100%]") >= 1
    assert "FAILED tests/a/test_one.py::test_bad" in done.stdout
    assert "1 failed, 91 passed" in done.stdout


def test_a_run_of_no_test_ends_with_5(run) -> None:
    assert run("-n", "2", "-k", "none_is_called_this").returncode == 5


def test_all_tests_on_the_cluster_are_one_unit_and_others_units_by_file() -> None:
    story, kill = "tests/cluster/test_story.py::test_x[a::b]", "tests/local/test_lifecycle.py::test_y"
    assert unit_of(story) == unit_of(kill)
    assert unit_of("tests/local/test_up.py::test_z[tests/cluster/]") == "tests/local/test_up.py"
