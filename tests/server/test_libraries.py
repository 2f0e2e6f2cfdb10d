"""What a replica loads, and what it leaves until somebody needs it; in a process of its own, as other tests load all."""

import subprocess
import sys

CODE = """
import sys
from dreambooth_server import libraries

studio = libraries.load()
assert studio.open_studio
loaded = [name for name in ("torch._dynamo.convert_frame", "scipy.stats._distn_infrastructure") if name in sys.modules]
assert not loaded, loaded

import scipy.stats
import torch
assert scipy.stats.beta.ppf(0.5, 1, 1) == 0.5

@torch.compiler.disable
def one(x):
    return x + 1

assert one(torch.ones(1)).item() == 2
assert not isinstance(one, torch._dynamo.eval_frame.OptimizedModule)
assert "torch._dynamo.convert_frame" in sys.modules
seen = []
compiled = torch.compile(lambda x: 3 * x, backend=lambda graph, inputs: seen.append(graph) or graph.forward)
assert compiled(torch.ones(1)).item() == 3
assert seen
assert not hasattr(torch._dynamo, "nothing")
"""


def test_compiler_and_statistics_are_loaded_when_they_are_needed() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
