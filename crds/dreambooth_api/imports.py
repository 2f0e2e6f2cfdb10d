"""Imports of the large libraries without what is not needed at first: half of the start of a training and of a replica.

Both wait for torch, diffusers, transformers and peft, which import much more than is used: torch's compiler, to exempt
functions from a compilation that never happens; every model of diffusers for one U-Net; every method of peft for LoRA.
`lean` leaves that out until somebody uses it. It is here because trainer and server share nothing else; it knows
libraries by name, and imports none by itself.

A module that is left out is in its place all the same, and executed for whoever asks for something that is not known
beforehand: when a library changes, a start takes longer, and nothing else changes. What is known beforehand are facts
of the libraries: of torch that without compilation an exemption leaves a function as it is, a graph break does nothing
and no module is an `OptimizedModule`; of peft where its package has what it exports from. Tests of trainer and server
say which of them does not hold any more.
"""

import atexit
import contextlib
import gc
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib import import_module
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from importlib.metadata import version
from importlib.util import find_spec, module_from_spec
from types import MappingProxyType, ModuleType, SimpleNamespace
from typing import Any

_NOTHING: Mapping[str, Any] = MappingProxyType({})
# For quantised weights, which nothing here has; it would bring all of torch's compiler.
_QUANTISED = "bitsandbytes"
# Packages that import all that is in them for whoever wants one part, and parts of scipy that hardly anything calls.
_PACKAGES = (
    "peft.tuners",
    "scipy.stats",
    "scipy.integrate",
    "diffusers.hooks",
    "diffusers.models.autoencoders",
    "diffusers.models.transformers",
    "diffusers.models.unets",
    "transformers.models",
)
# What diffusers and transformers take from peft's package, and where that has it from.
PEFT = {
    "LoraConfig": "peft.tuners.lora",
    "PeftConfig": "peft.config",
    "PeftType": "peft.utils",
    "get_peft_model_state_dict": "peft.utils",
    "inject_adapter_in_model": "peft.mapping",
    "set_peft_model_state_dict": "peft.utils",
}


@contextlib.contextmanager
def lean(*, compiler: bool = False) -> Iterator[None]:
    """Within, what is imported leaves out what a training or a replica does not need at first.

    `compiler`: torch's compiler is wanted, and there from the start: only what is exempted from it then is exempt.
    Other threads must not import meanwhile what is missing within.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(_collector_at_rest())
        stack.enter_context(missing(_QUANTISED))
        if not compiler:
            stack.enter_context(postponed("torch._dynamo", known=uncompiled()))
        peft = {"__version__": version("peft")}
        stack.enter_context(postponed("peft", known=peft, homes=PEFT, without=(_QUANTISED,)))
        # The losses of transformers' object detection.
        stack.enter_context(postponed("scipy.optimize", calls=("linear_sum_assignment",)))
        for name in _PACKAGES:
            stack.enter_context(postponed(name, without=(_QUANTISED,)))
        # The order in which peft's own package imports them: its parts import one another.
        import_module("peft.utils")
        yield


def uncompiled() -> dict[str, Any]:
    """What torch's compiler answers where nothing is compiled, by name below `torch._dynamo`.

    diffusers and transformers exempt functions when they are imported, optimizers in each step.
    """

    def exempt(function: Callable[..., Any] | None = None, *_: Any, **__: Any) -> Any:
        return (lambda decorated: decorated) if function is None else function

    return {
        "allow_in_graph": exempt,
        "assume_constant_result": exempt,
        "disable": exempt,
        "graph_break": lambda msg="": None,
        "eval_frame.OptimizedModule": type("OptimizedModule", (), {}),
    }


@contextlib.contextmanager
def _collector_at_rest() -> Iterator[None]:
    """Within, Python's collector of garbage rests; what was made is left alone afterwards.

    Imports make hundreds of thousands of objects that stay, and it would go through them again and again.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
        # What is set aside at the very end looks like a leak to some extensions, which print that.
        atexit.register(gc.unfreeze)


@contextlib.contextmanager
def missing(name: str) -> Iterator[None]:
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
def postponed(
    name: str,
    *,
    known: Mapping[str, Any] = _NOTHING,
    homes: Mapping[str, str] = _NOTHING,
    calls: Sequence[str] = (),
    without: Sequence[str] = (),
) -> Iterator[None]:
    """Within, a package that was not imported before is not executed; afterwards it is when somebody uses it.

    No execution is needed for attributes that are `known` beforehand (`part.name`: of a submodule), for those whose
    `homes` are submodules, for functions that are named in `calls` until they are called, nor for submodules that are
    imported within. Modules that it is executed `without` are missing meanwhile. importlib's LazyLoader executes a
    module for whoever only looks at its name, as torch does with every module.
    """
    spec = None
    if name not in sys.modules:
        with contextlib.suppress(ModuleNotFoundError):
            spec = find_spec(name)
    if spec is None or spec.loader is None:
        yield
        return
    package = _Package(spec, spec.loader, known, homes, calls, without)
    sys.modules[name] = package.module
    try:
        yield
    finally:
        package.hide_path()


class _Package:
    """A package that is in its place and executed when somebody uses it: see `postponed`."""

    def __init__(
        self,
        spec: ModuleSpec,
        loader: Loader,
        known: Mapping[str, Any],
        homes: Mapping[str, str],
        calls: Sequence[str],
        without: Sequence[str],
    ) -> None:
        self.module = module_from_spec(spec)
        self._name, self._loader, self._homes, self._without = spec.name, loader, homes, without
        self._path, self._executed, self._lock = list(self.module.__path__), False, threading.RLock()
        called = {function: partial(self._call, function) for function in calls}
        self._stand_ins = _stand_ins(known, self._part) | called
        vars(self.module).update(self._stand_ins, __getattr__=self._content)

    def hide_path(self) -> None:
        """Whoever imports a submodule asks for the path first: from now on that executes the package."""
        if not self._executed:
            del self.module.__path__

    def _execute(self) -> None:
        with self._lock:
            if self._executed:
                return
            self._executed, self.module.__path__ = True, self._path
            # Its own code is to find what is its own alone.
            for attribute, stand_in in self._stand_ins.items():
                if vars(self.module).get(attribute) is stand_in:
                    delattr(self.module, attribute)
            with contextlib.ExitStack() as stack:
                for optional in self._without:
                    stack.enter_context(missing(optional))
                self._loader.exec_module(self.module)

    def _content(self, attribute: str) -> Any:
        """What the module does not have: its `__getattr__`."""
        if attribute in self._homes and not self._executed:
            return getattr(import_module(self._homes[attribute]), attribute)
        with self._lock:
            # Another thread was faster, or this one comes from the code that is being executed.
            if self._executed and attribute in vars(self.module):
                return vars(self.module)[attribute]
            if not self._executed and (not attribute.startswith("__") or attribute == "__path__"):
                self._execute()
                if attribute == "__path__":
                    sys.meta_path.insert(0, _Brought(self._name))
                return getattr(self._own, attribute)
        if self._own is not self.module:
            return getattr(self._own, attribute)
        raise AttributeError(f"module {self._name!r} has no attribute {attribute!r}")

    @property
    def _own(self) -> ModuleType:
        # Some put another module in their place, as transformers does.
        return sys.modules[self._name]

    def _part(self, end: str) -> Any:
        self._execute()
        return import_module(f"{self._name}.{end}")

    def _call(self, function: str, *args: Any, **options: Any) -> Any:
        self._execute()
        return getattr(self._own, function)(*args, **options)


class _Brought:
    """Finder and loader of submodules that their package brings while Python asks it for its path, to import them.

    Python has seen before that they are not there, and would import them a second time.
    """

    def __init__(self, package: str) -> None:
        self._package = package
        self._specs: dict[str, ModuleSpec | None] = {}

    def find_spec(self, name: str, path: object = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Of a submodule that is there; not when it is reloaded, which has a `target`."""
        if target is not None or name.rpartition(".")[0] != self._package or name not in sys.modules:
            return None
        return ModuleSpec(name, self)  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The one that is there."""
        module = sys.modules[spec.name]
        self._specs[spec.name] = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Was done; what it was loaded by stays."""
        module.__spec__ = self._specs.pop(module.__name__)


class _Part(SimpleNamespace):
    """A submodule of which some attributes are known; for any other the real one is asked."""

    def __getattr__(self, attribute: str) -> Any:
        return getattr(self._real(), attribute)


def _stand_ins(known: Mapping[str, Any], real: Callable[[str], Any]) -> dict[str, Any]:
    """Attributes of a module: `known` without a dot, and parts for the others, whose `real` ones are asked for."""
    parts: dict[str, dict[str, Any]] = {}
    for name, value in known.items():
        part, _, attribute = name.rpartition(".")
        parts.setdefault(part, {})[attribute] = value
    plain = parts.pop("", {})
    return plain | {part: _Part(_real=partial(real, part), **attributes) for part, attributes in parts.items()}
