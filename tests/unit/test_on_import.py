# SPDX-License-Identifier: Apache-2.0
"""Something is done with a module when it is imported, and nothing imports it for that."""

import importlib
import inspect
import itertools
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from vllm_eplb_plugin.overrides import on_import
from vllm_eplb_plugin.overrides.on_import import when_imported

_numbers = itertools.count()
Make = Callable[..., str]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Writes a module that ends with ``complete = True``; its name."""
    monkeypatch.syspath_prepend(tmp_path)
    names = []

    def write(body: str = "") -> str:
        names.append(f"awaited_module_{next(_numbers)}")
        (tmp_path / f"{names[-1]}.py").write_text(f"{body}\ncomplete = True\n")
        importlib.invalidate_caches()
        return names[-1]

    yield write
    for name in names:
        sys.modules.pop(name, None)


def mark(module: ModuleType) -> None:
    module.seen = hasattr(module, "complete")  # type: ignore[attr-defined]


def test_a_module_is_seen_when_its_code_has_run_and_not_imported_for_it(make: Make) -> None:
    name = make()
    take_back = when_imported(name, mark)
    assert name not in sys.modules
    assert importlib.import_module(name).seen
    take_back()


def test_a_module_that_is_there_is_seen_at_once(make: Make) -> None:
    module = importlib.import_module(make())
    when_imported(module.__name__, mark)()
    assert module.seen


def test_a_module_keeps_its_own_loader(make: Make) -> None:
    name = make()
    take_back = when_imported(name, mark)
    module = importlib.import_module(name)
    take_back()
    assert module.__spec__ is not None
    assert module.__loader__ is module.__spec__.loader
    assert isinstance(module.__loader__, importlib.machinery.SourceFileLoader)
    assert "complete = True" in inspect.getsource(module)


def test_a_reloaded_module_is_seen_again(make: Make) -> None:
    name = make()
    take_back = when_imported(name, mark)
    module = importlib.import_module(name)
    module.seen = False
    importlib.reload(module)
    take_back()
    assert module.seen


def test_who_took_it_back_is_not_called_and_leaves_no_finder(make: Make) -> None:
    name, finders = make(), list(sys.meta_path)
    when_imported(name, mark)()
    assert sys.meta_path == finders
    assert not hasattr(importlib.import_module(name), "seen")


def test_a_module_that_another_thread_is_importing_is_seen_when_it_is_complete(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = make("import importing; importing.started.set(); assert importing.go_on.wait(60)")
    importing = SimpleNamespace(started=threading.Event(), go_on=threading.Event())
    monkeypatch.setitem(sys.modules, "importing", importing)  # type: ignore[misc]
    thread = threading.Thread(target=importlib.import_module, args=(name,))
    thread.start()
    assert importing.started.wait(60)
    lock_of = on_import._bootstrap._ModuleLockManager

    def lock(name: str) -> object:
        importing.go_on.set()  # no sooner than somebody waits for the import
        return lock_of(name)

    with monkeypatch.context() as patch:
        patch.setattr(on_import._bootstrap, "_ModuleLockManager", lock)
        take_back = when_imported(name, mark)
    importing.go_on.set()
    thread.join(60)
    take_back()
    assert sys.modules[name].seen


def test_a_module_that_loads_us_itself_is_seen_as_far_as_it_is(make: Make) -> None:
    name = make("import importing; importing.load(__name__)")
    found = []
    loading = SimpleNamespace(load=lambda name: when_imported(name, found.append)())
    sys.modules["importing"] = loading  # type: ignore[assignment]
    try:
        assert found == [importlib.import_module(name)]
    finally:
        del sys.modules["importing"]
