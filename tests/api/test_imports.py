"""What `imports` does, with packages made for it; trainer and server test it with the real ones."""

import sys
import threading
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import pytest

from dreambooth_api.imports import missing, postponed


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable]:
    """`package(name, init, **parts)`: a package on the path, by its source."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)

    def make(name: str, init: str, **parts: str) -> None:
        (tmp_path / name).mkdir()
        for part, source in {"__init__": init, **parts}.items():
            (tmp_path / name / f"{part}.py").write_text(source)

    yield make
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_executed_for_whoever_asks_for_what_is_not_known(package: Callable) -> None:
    package("heavy", "from heavy.part import value\nname = 'real'", part="value = 7\nother = 8")
    with postponed("heavy", known={"name": "known", "part.value": "known"}):
        import heavy

        assert (heavy.name, heavy.part.value) == ("known", "known")
    assert not hasattr(heavy, "__wrapped__")
    assert "heavy.part" not in sys.modules
    assert heavy.value == 7
    assert (heavy.name, heavy.part.value, heavy.part) == ("real", 7, import_module("heavy.part"))
    with pytest.raises(AttributeError, match="module 'heavy' has no attribute 'nothing'"):
        _ = heavy.nothing


def test_executed_for_whoever_asks_for_the_rest_of_a_part(package: Callable) -> None:
    package("heavy", "", part="value = 7\nother = 8")
    with postponed("heavy", known={"part.value": "known"}):
        import heavy
    assert heavy.part.other == 8
    assert heavy.part.value == 7


def test_a_submodule_is_executed_alone_within_and_brings_its_package_afterwards(package: Callable) -> None:
    package("heavy", "from heavy import late\ndone = True", part="value = 7", late="")
    with postponed("heavy", known={"__version__": "1"}, homes={"value": "heavy.part"}):
        from heavy import __version__, value

        assert (value, __version__) == (7, "1")
        import heavy
    assert heavy.value == 7
    assert "heavy.late" not in sys.modules
    import heavy.late

    assert heavy.done
    # What was not its own is gone, and so is what was taken from a submodule.
    assert heavy.part.value == 7
    with pytest.raises(AttributeError):
        _ = heavy.value
    assert not hasattr(heavy, "__version__")


def test_a_submodule_that_its_package_brings_is_executed_once(
    package: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    package("heavy", "from heavy import part\nbrought = part", part="value = object()")
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    with postponed("heavy"):
        import heavy
    import heavy.part

    assert heavy.part is heavy.brought is sys.modules["heavy.part"]
    assert heavy.part.__spec__.origin == heavy.part.__file__


def test_code_that_asks_for_its_own_rest_is_not_executed_twice(package: Callable) -> None:
    package("heavy", "import heavy\nearly = hasattr(heavy, 'value')\nvalue = 7")
    with postponed("heavy"):
        import heavy
    assert (heavy.value, heavy.early) == (7, False)


def test_a_package_may_answer_itself_for_what_it_lacks(package: Callable) -> None:
    package("heavy", "def __getattr__(name): return name.upper()")
    with postponed("heavy"):
        import heavy
    assert heavy.anything == "ANYTHING"
    assert heavy.more == "MORE"


def test_a_package_may_put_another_in_its_place(package: Callable) -> None:
    package("heavy", "import sys, types\nsys.modules['heavy'] = types.SimpleNamespace(value=7, more=8)")
    with postponed("heavy"):
        import heavy
    assert (heavy.value, heavy.more) == (7, 8)


def test_what_it_is_executed_without_is_missing_then_too(package: Callable) -> None:
    package("optional", "")
    package("heavy", "try:\n    import optional\nexcept ImportError:\n    optional = None")
    with postponed("heavy", without=["optional"]):
        import heavy
    assert heavy.optional is None
    assert import_module("optional")


def test_a_function_is_there_until_it_is_called(package: Callable) -> None:
    package("heavy", "import sys\nvalue = 7\ndef doubled(x): return 2 * x")
    with postponed("heavy", calls=["doubled"]):
        from heavy import doubled
    assert "value" not in vars(sys.modules["heavy"])
    assert doubled(3) == 6
    assert sys.modules["heavy"].doubled is not doubled


def test_threads_wait_for_the_one_that_executes(package: Callable) -> None:
    package("heavy", "import time\ntime.sleep(0.2)\nvalue = 7")
    with postponed("heavy"):
        import heavy
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(heavy.value)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert found == [7] * 4


def test_what_is_imported_already_stays(package: Callable) -> None:
    package("heavy", "value = 7")
    import heavy

    with postponed("heavy", known={"value": 8}), missing("heavy"):
        assert import_module("heavy") is heavy
        assert heavy.value == 7
    assert import_module("heavy") is heavy


def test_missing_within_and_there_afterwards(package: Callable) -> None:
    package("heavy", "value = 7")
    with missing("heavy"), pytest.raises(ImportError):
        import_module("heavy")
    assert import_module("heavy").value == 7


def test_what_is_not_installed_is_nothing_to_postpone() -> None:
    with postponed("not_installed"), postponed("not_installed.part"), pytest.raises(ImportError):
        import_module("not_installed")
