"""Imported by the server that ranks are forked from (`processes` in conftest.py): what each would import for itself.

All of it: some of what is forked compiles.
"""

from dreambooth_trainer import libraries, loop, scoring  # noqa: F401

libraries.load(compiler=True)
