# SPDX-License-Identifier: Apache-2.0
"""Look names up in the sources of a vLLM, without importing it."""

import ast
import copy
import functools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

_DEFINES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_MOST_IMPORTS = 20
"""A name that is imported from module to module: so often at most."""


class Sources:
    """The Python files of one release."""

    def __init__(self, folder: Path) -> None:
        """Name it.

        Args:
            folder: That the package ``vllm`` is in.
        """
        self._folder = folder

    def has(self, name: str) -> bool:
        """Whether there is a module of that dotted name, or one that has the name.

        What a module gets by ``*`` or makes when it is asked counts as there.
        """
        parts = name.split(".")
        rest: list[str] = []
        while parts and self._file(".".join(parts)) is None:
            rest.insert(0, parts.pop())
        if not parts or not rest:
            return not rest
        names = self._names(".".join(parts))
        return not {rest[0], "*", "__getattr__"}.isdisjoint(names)

    def find(self, target: str) -> ast.AST | None:
        """Find a function or class.

        Args:
            target: As of an override, ``package.module:Class.name``.

        Returns:
            Its definition, in whatever module it is imported from; None: it is none, or is made in
            another way.
        """
        module, _, path = target.partition(":")
        first, *inner = path.split(".")
        found = self._follow(module, first)
        for name in inner:
            body = found.body if isinstance(found, ast.ClassDef) else []
            found = next((one for one in _defined(body) if one.name == name), None)
        return found

    def _follow(self, module: str, name: str) -> ast.AST | None:
        for _ in range(_MOST_IMPORTS):
            found = self._names(module).get(name)
            if not isinstance(found, ast.ImportFrom):
                return found if isinstance(found, _DEFINES) else None
            [alias] = [one for one in found.names if (one.asname or one.name) == name]
            module, name = _absolute(found, module, self._is_package(module)), alias.name
        return None

    @functools.cache  # noqa: B019 - a process looks at two releases
    def _names(self, module: str) -> dict[str, ast.AST]:
        file = self._file(module)
        if file is None:
            return {}
        return dict(_top_level(ast.parse(file.read_text(encoding="utf-8")).body))

    def _file(self, module: str) -> Path | None:
        path = self._folder.joinpath(*module.split("."))
        files = (path / "__init__.py", path.with_name(f"{path.name}.py"))
        return next((one for one in files if one.is_file()), None)

    def _is_package(self, module: str) -> bool:
        file = self._file(module)
        return file is not None and file.name == "__init__.py"


def has_another_body(target: str, older: Sources, newer: Sources) -> bool:
    """Whether both have a function or class, and they differ in more than comments and docstrings.

    Args:
        target: As of `Sources.find`.
        older: Of one release.
        newer: Of another.
    """
    one, other = older.find(target), newer.find(target)
    return one is not None and other is not None and _dumped(one) != _dumped(other)


def gone(names: Iterable[str], older: Sources, newer: Sources) -> list[str]:
    """Those that were there in the older release and are not in the newer."""
    return [name for name in names if older.has(name) and not newer.has(name)]


def _dumped(node: ast.AST) -> str:
    node = copy.deepcopy(node)
    for one in ast.walk(node):
        if isinstance(one, _DEFINES) and ast.get_docstring(one, clean=False) is not None:
            one.body = one.body[1:]
    return ast.dump(node)


def _top_level(body: Iterable[ast.stmt]) -> Iterator[tuple[str, ast.AST]]:
    """What a module has, also what stands below ``if`` and ``try``."""
    for node in body:
        if isinstance(node, _DEFINES):
            yield node.name, node
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from ((one.asname or one.name.partition(".")[0], node) for one in node.names)
        elif isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = (one for target in targets for one in ast.walk(target))
            yield from ((one.id, node) for one in names if isinstance(one, ast.Name))
        else:
            for inner in ("body", "orelse", "handlers", "finalbody"):
                for one in getattr(node, inner, ()):
                    yield from _top_level(one.body if isinstance(one, ast.ExceptHandler) else [one])


def _defined(body: Iterable[ast.stmt]) -> Iterator[Any]:
    yield from (one for _, one in _top_level(body) if isinstance(one, _DEFINES))


def _absolute(imported: ast.ImportFrom, module: str, is_package: bool) -> str:
    """The module that a name is imported from."""
    if not imported.level:
        return imported.module or ""
    parts = module.split(".")
    up = imported.level - is_package
    above = parts[: len(parts) - up]
    return ".".join([*above, *([imported.module] if imported.module else [])])
