"""torch, diffusers and what draws with them, loaded at once: nearly all of a replica's start."""

import atexit
import contextlib
import gc
import sys
import threading
from collections.abc import Callable
from importlib import import_module
from importlib.util import LazyLoader, find_spec, module_from_spec
from types import ModuleType, SimpleNamespace
from typing import Any


def load() -> Any:
    """The module `studio`.

    Imports make hundreds of thousands of objects that stay, and the collector of garbage would go through them again
    and again: it rests meanwhile, and leaves them alone afterwards.
    """
    gc.disable()
    try:
        torch = import_module("torch")
        _postpone("scipy.stats")
        if "torch._dynamo" not in sys.modules:
            torch._dynamo = _postpone_dynamo()
        return import_module("dreambooth_server.studio")
    finally:
        gc.freeze()
        gc.enable()
        # What is set aside at the very end looks like a leak to some extensions, which print that.
        atexit.register(gc.unfreeze)


def _postpone(name: str) -> None:
    """Have a module executed when something of it is first used: the recipe of importlib's documentation.

    diffusers' schedulers import scipy.stats for one kind of noise schedule.
    """
    if name in sys.modules or (spec := find_spec(name)) is None or spec.loader is None:
        return
    spec.loader = LazyLoader(spec.loader)
    sys.modules[name] = module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])


def _postpone_dynamo() -> ModuleType:
    """torch's compiler, a third of all that is imported, without its content until somebody uses that.

    diffusers and transformers import it to exempt functions from compilation, to ask whether something is compiled,
    and for one of its submodules. As long as nothing is compiled here, that can be answered without it.
    """
    spec = find_spec("torch._dynamo")
    assert spec is not None
    assert spec.loader is not None
    module, loader, lock = module_from_spec(spec), spec.loader, threading.RLock()
    executed = False

    def exempt(function: Callable[..., Any] | None = None, *_: Any, **__: Any) -> Any:
        return (lambda decorated: decorated) if function is None else function

    def content(name: str) -> Any:
        nonlocal executed
        with lock:
            if name in vars(module):  # Another thread was faster.
                return vars(module)[name]
            # Whoever imports another submodule asks for the path first.
            if executed or (name.startswith("__") and name != "__path__"):
                raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")
            executed, module.__path__ = True, path
            loader.exec_module(module)
        return getattr(module, name)

    sys.modules[module.__name__] = module
    with contextlib.suppress(ImportError):
        import_module(f"{module.__name__}._trace_wrapped_higher_order_op")
    path = vars(module).pop("__path__")
    compiled = SimpleNamespace(OptimizedModule=type("OptimizedModule", (), {}))
    vars(module).update(allow_in_graph=exempt, disable=exempt, eval_frame=compiled, __getattr__=content)
    return module
