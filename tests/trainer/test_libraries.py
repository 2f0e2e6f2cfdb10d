import subprocess
import sys

CODE = """
import gc
from dreambooth_trainer import libraries
libraries.load()
frozen = gc.get_freeze_count()
libraries.load()
assert gc.isenabled()
assert gc.get_freeze_count() == frozen > 100_000
import sys
assert {"accelerate", "diffusers.models.unets.unet_2d_condition", "peft", "torch"} <= set(sys.modules)
"""


def test_what_libraries_leave_in_memory_is_collected_no_more() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "leaked" not in done.stderr
