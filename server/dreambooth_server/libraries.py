"""torch, diffusers and what draws with them, loaded at once: nearly all of a replica's start."""

import atexit
import contextlib
import gc
import sys
import threading
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec, module_from_spec
from types import SimpleNamespace
from typing import Any


def load(compiles: bool = False) -> Any:
    """The module `studio`; `compiles`: torch's compiler will be used, so it is loaded as it is.

    Imports make hundreds of thousands of objects that stay, and the collector of garbage would go through them again
    and again: it rests meanwhile, and leaves them alone afterwards.
    """
    gc.disable()
    try:
        # Quantised weights, which nothing here has; it would bring all of torch's compiler.
        compiler = contextlib.nullcontext() if compiles else _postponed("torch._dynamo", **_uncompiled())
        with _missing("bitsandbytes"), _postponed("scipy.stats"), compiler:
            return import_module("dreambooth_server.studio")
    finally:
        gc.freeze()
        gc.enable()
        # What is set aside at the very end looks like a leak to some extensions, which print that.
        atexit.register(gc.unfreeze)


def _uncompiled() -> dict[str, Any]:
    """What torch's compiler answers where nothing is compiled: exemptions leave functions as they are.

    That is all that diffusers and transformers want of it when they are imported. diffusers' schedulers want
    scipy.stats for one kind of noise schedule. Together they are a third of all that would be imported.
    """

    def exempt(function: Callable[..., Any] | None = None, *_: Any, **__: Any) -> Any:
        return (lambda decorated: decorated) if function is None else function

    compiled = SimpleNamespace(OptimizedModule=type("OptimizedModule", (), {}))
    return {"allow_in_graph": exempt, "assume_constant_result": exempt, "disable": exempt, "eval_frame": compiled}


@contextlib.contextmanager
def _missing(name: str) -> Iterator[None]:
    """Within, an optional module that was not imported before is not there."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]


@contextlib.contextmanager
def _postponed(name: str, **known: Any) -> Iterator[None]:
    """Within, a module that was not imported before is not executed; afterwards it is when somebody uses it.

    Attributes that are `known` beforehand need no execution, nor do submodules that are imported within.
    importlib's LazyLoader executes a module for whoever only looks at its name, as torch does with every module.
    """
    spec = None
    if name not in sys.modules:
        with contextlib.suppress(ModuleNotFoundError):
            spec = find_spec(name)
    if spec is None or spec.loader is None:
        yield
        return
    module, loader, lock = module_from_spec(spec), spec.loader, threading.RLock()
    path, executed = list(module.__path__), False

    def content(attribute: str) -> Any:
        nonlocal executed
        with lock:
            if attribute in vars(module):  # Another thread was faster.
                return vars(module)[attribute]
            # Whoever imports a submodule asks for the path first.
            if executed or (attribute.startswith("__") and attribute != "__path__"):
                raise AttributeError(f"module {name!r} has no attribute {attribute!r}")
            executed, module.__path__ = True, path
            loader.exec_module(module)
        return getattr(module, attribute)

    vars(module).update(known, __getattr__=content)
    sys.modules[name] = module
    try:
        yield
    finally:
        if not executed:
            del module.__path__
