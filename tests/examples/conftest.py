"""The world's programs are scripts: their folder goes on the path, as Python puts it there when one is run."""

import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
sys.path.insert(0, str(EXAMPLES / "world"))


@pytest.fixture(scope="session")
def examples() -> Path:
    return EXAMPLES
