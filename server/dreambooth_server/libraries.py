"""torch, diffusers and what draws with them, loaded at once: nearly all of a replica's start."""

import atexit
import contextlib
import gc
import sys
import threading
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import LazyLoader, find_spec, module_from_spec
from types import SimpleNamespace
from typing import Any

_COMPILER = "torch._dynamo"


def load() -> Any:
    """The module `studio`.

    Imports make hundreds of thousands of objects that stay, and the collector of garbage would go through them again
    and again: it rests meanwhile, and leaves them alone afterwards.
    """
    gc.disable()
    try:
        _postpone("scipy.stats")
        with _compiler_postponed():
            return import_module("dreambooth_server.studio")
    finally:
        gc.freeze()
        gc.enable()
        # What is set aside at the very end looks like a leak to some extensions, which print that.
        atexit.register(gc.unfreeze)


def _postpone(name: str) -> None:
    """Have a module executed when something of it is first used: the recipe of importlib's documentation.

    diffusers' schedulers import scipy.stats, where it is installed, for one kind of noise schedule.
    """
    with contextlib.suppress(ModuleNotFoundError):
        if name not in sys.modules and (spec := find_spec(name)) and spec.loader:
            spec.loader = LazyLoader(spec.loader)
            sys.modules[name] = module_from_spec(spec)
            spec.loader.exec_module(sys.modules[name])


@contextlib.contextmanager
def _compiler_postponed() -> Iterator[None]:
    """Within, torch's compiler, a third of all that is imported, is not executed; later it is when somebody uses it.

    diffusers and transformers import it to exempt functions from compilation, to ask whether something is compiled,
    and for one of its submodules. As long as nothing is compiled, that can be had without the rest.
    """
    spec = None if _COMPILER in sys.modules else find_spec(_COMPILER)
    if spec is None or spec.loader is None:
        yield
        return
    module, loader, lock = module_from_spec(spec), spec.loader, threading.RLock()
    path, executed = list(module.__path__), False

    def exempt(function: Callable[..., Any] | None = None, *_: Any, **__: Any) -> Any:
        return (lambda decorated: decorated) if function is None else function

    def content(name: str) -> Any:
        nonlocal executed
        with lock:
            if name in vars(module):  # Another thread was faster.
                return vars(module)[name]
            # Whoever imports a submodule asks for the path first.
            if executed or (name.startswith("__") and name != "__path__"):
                raise AttributeError(f"module {_COMPILER!r} has no attribute {name!r}")
            executed, module.__path__ = True, path
            loader.exec_module(module)
        return getattr(module, name)

    compiled = SimpleNamespace(OptimizedModule=type("OptimizedModule", (), {}))
    vars(module).update(allow_in_graph=exempt, disable=exempt, eval_frame=compiled, __getattr__=content)
    sys.modules[_COMPILER] = module
    try:
        yield
    finally:
        if not executed:
            del module.__path__
