"""torch, diffusers and what draws with them, loaded at once: nearly all of a replica's start."""

from importlib import import_module
from typing import Any

from dreambooth_api import imports


def load(compiler: bool = False) -> Any:
    """The module `studio`. `compiler`: torch's compiler is wanted."""
    with imports.lean(compiler=compiler):
        return import_module("dreambooth_server.studio")
