import os

import pytest

from dreambooth_api.compiling import CACHE, COMPILERS
from dreambooth_server import compiling
from dreambooth_server.settings import Places

CPU = """processor\t: 0
model name\t: A processor
cpu MHz\t\t: {mhz}
flags\t\t: fpu {flags}

processor\t: 1
"""


def test_programs_are_kept_by_type_of_processor_in_the_folder_that_outlives_pods(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "environ", {"OMP_NUM_THREADS": "3"})
    compiling.settle(Places(work=tmp_path / "work", lasting=tmp_path))
    assert os.environ[CACHE] == str(tmp_path / "compiled" / compiling.processor())
    assert os.environ[COMPILERS] == "3"


@pytest.mark.parametrize(
    ("other", "same"), [({"mhz": 1200, "flags": "avx2"}, True), ({"mhz": 3000, "flags": "avx2 avx512f"}, False)]
)
def test_another_processor_is_another_name(tmp_path, other, same):
    found = []
    for n, told in enumerate(({"mhz": 3000, "flags": "avx2"}, other)):
        about = tmp_path / str(n)
        about.write_text(CPU.format(**told))
        found.append(compiling.processor(about))
    assert (found[0] == found[1]) is same
    assert compiling.processor(tmp_path / "none") not in found
