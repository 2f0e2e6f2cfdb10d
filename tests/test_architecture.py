"""The laws of the packages hold: import-linter's contracts of pyproject.toml."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_packages_import_only_what_they_may():
    program = shutil.which("lint-imports", path=Path(sys.executable).parent)
    assert program, "import-linter is not installed beside Python: uv pip install -e '.[dev]'"
    done = subprocess.run([program, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("root", ["crds", "operator", "trainer", "server", "local", "tests"])
def test_source_roots_are_no_packages(root):
    """An __init__.py in operator/ would shadow the standard library's module of that name."""
    assert not (ROOT / root / "__init__.py").exists()
