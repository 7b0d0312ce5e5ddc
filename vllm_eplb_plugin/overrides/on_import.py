# SPDX-License-Identifier: Apache-2.0
"""Do something with a module as soon as it is there, without importing it."""

import contextlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import _bootstrap
from types import ModuleType

_Do = Callable[[ModuleType], object]
_Path = Sequence[str] | None


class _Loader(importlib.abc.Loader):
    """Another loader, with what waits for its module run at the end."""

    def __init__(self, loader: importlib.abc.Loader) -> None:
        self._loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # Whoever looks for the module's source or files asks for the loader that knows them.
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        for do in list(_waiting.get(module.__name__, ())):
            do(module)


class _Finder(importlib.abc.MetaPathFinder):
    """Lets the other finders find what somebody waits for."""

    def find_spec(
        self, fullname: str, path: _Path, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in _waiting:
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(fullname, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _Loader(spec.loader)
                return spec
        return None


_finder = _Finder()
_waiting: dict[str, list[_Do]] = {}


def when_imported(name: str, do: _Do) -> Callable[[], None]:
    """Call ``do`` with a module: at once if it is imported, else when its code has run.

    No other thread sees the module in between: it is still locked for import then. It is called
    again when the module is reloaded.

    Returns:
        What ends the waiting; what ``do`` has done stays.
    """
    with _import_locked(name):
        _waiting.setdefault(name, []).append(do)
        if _finder not in sys.meta_path:
            sys.meta_path.insert(0, _finder)
        module = sys.modules.get(name)
    if module is not None:
        do(module)

    def take_back() -> None:
        if do in (waiting := _waiting.get(name, [])):
            waiting.remove(do)
        if not waiting:
            _waiting.pop(name, None)
        if not _waiting and _finder in sys.meta_path:
            sys.meta_path.remove(_finder)

    return take_back


@contextlib.contextmanager
def _import_locked(name: str) -> Iterator[None]:
    """Wait for a thread that imports the module: it has asked the finders already."""
    with contextlib.ExitStack() as stack:
        # Raised where that thread waits for this one; the module then is as far as it is.
        with contextlib.suppress(_bootstrap._DeadlockError):  # type: ignore[attr-defined]
            lock = _bootstrap._ModuleLockManager(name)  # type: ignore[attr-defined]
            stack.enter_context(lock)
        yield
