"""What a replica loads, and what it leaves until somebody needs it; in a process of its own: other tests load all."""

import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import sys
from pathlib import Path

from dreambooth_server import libraries
from dreambooth_server.drawing import Drawing

studio = libraries.load().open_studio(Path(sys.argv[1]), {})
studio.draw([Drawing("base", "a robot", "", 0, 32, 32, 1, 4.0)])
loaded = [name for name in ("torch._dynamo.convert_frame", "scipy.stats._stats_py") if name in sys.modules]
assert not loaded, loaded

import scipy.stats
import torch
assert scipy.stats.beta.ppf(0.5, 1, 1) == 0.5

@torch.compiler.disable
def one(x):
    return x + 1

assert one(torch.ones(1)).item() == 2
assert "torch._dynamo.convert_frame" not in sys.modules
from torch._dynamo.backends.registry import list_backends
assert "inductor" in list_backends()
seen = []
compiled = torch.compile(torch.nn.Linear(1, 1), backend=lambda graph, inputs: seen.append(graph) or graph.forward)
assert isinstance(compiled, torch._dynamo.eval_frame.OptimizedModule)
assert compiled(torch.ones(1)).shape == (1,)
assert seen
assert not hasattr(torch._dynamo, "nothing")
"""

COMPILES = """
from dreambooth_server import libraries

libraries.load(compiler=True)
import torch
assert torch._dynamo.disable.__module__ == "torch._dynamo.decorators"
"""


@pytest.mark.parametrize("code", [CODE, COMPILES])
def test_compiler_and_statistics_are_loaded_when_they_are_needed(base: Path, code: str) -> None:
    command = [sys.executable, "-c", code, str(base)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
