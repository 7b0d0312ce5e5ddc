# SPDX-License-Identifier: Apache-2.0
"""Which room of the plugin and of the harness may import what, and how long and alike files may be.

scripts/lint runs it; it names every file that breaks a rule. docs/architecture.md tells of rooms.
"""

import ast
import sys
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from scripts.house_rooms import (
    HARNESS_MAY_IMPORT,
    HARNESS_MAY_IMPORT_FROM_OUTSIDE,
    MAY_IMPORT,
    MAY_IMPORT_FROM_OUTSIDE,
    SHARED,
)

PACKAGE = Path(__file__).parents[1] / "vllm_eplb_plugin"

MAX_LINES = 250
TABLES = {"releases", "overrides.catalogue", "gsm_tiny_templates"}
"""A line or more for every release, module or kind of problem: they may grow."""


class Import(NamedTuple):
    """One name that a module imports, and where."""

    line: int
    name: str


class Module(NamedTuple):
    """One file of the package."""

    file: Path
    """From the folder that the package is in."""
    room: str
    """The folder below the package, or the module beside all folders."""
    lines: int
    imports: list[Import]
    """Of anything; inside functions, too, but not for types alone."""


class Rules(NamedTuple):
    """What holds in one package."""

    may_import: dict[str, str]
    from_outside: dict[str, set[str]]


PLUGIN = Rules(MAY_IMPORT, MAY_IMPORT_FROM_OUTSIDE)
HARNESS = Rules(HARNESS_MAY_IMPORT, HARNESS_MAY_IMPORT_FROM_OUTSIDE)


def problems(package: Path = PACKAGE) -> list[str]:
    """Every broken rule as ``file:line: rule``; none: the houses are in order.

    Args:
        package: The plugin's; the harness is beside it.
    """
    harness = package.parent / "eval"
    return [
        *problems_of(package, PLUGIN),
        *problems_of(harness, HARNESS),
        *wrong_imports_of_harness(harness, package.name),
        *long_files(read(package.parent / "scripts")),
    ]


def problems_of(package: Path, rules: Rules) -> Iterator[str]:
    """Those of one package by itself."""
    modules = read(package)
    inside = {name: own_imports(name, modules, package.name) for name in modules}
    yield from wrong_imports(modules, inside, rules)
    yield from circles(modules, inside)
    yield from long_files(modules)
    yield from names_alike(modules)


def read(package: Path) -> dict[str, Module]:
    """Every module, by its name below the package, such as ``placement.maps``."""
    modules = {}
    for file in sorted(package.rglob("*.py")):
        parts = file.relative_to(package).with_suffix("").parts
        text = file.read_text(encoding="utf-8")
        imports = list(imports_of(ast.parse(text), [package.name, *parts[:-1]]))
        name = ".".join(part for part in parts if part != "__init__")
        modules[name] = Module(
            file.relative_to(package.parent), parts[0], len(text.splitlines()), imports
        )
    return modules


def imports_of(tree: ast.Module, folder: list[str]) -> Iterator[Import]:
    """See `Module.imports`; ``folder`` is what relative ones start from."""
    for_types = {
        child
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for statement in node.body
        for child in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if node in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from (Import(node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = folder[: len(folder) + 1 - node.level] if node.level else []
            start = [*above, *([node.module] if node.module else [])]
            yield from (Import(node.lineno, ".".join([*start, one.name])) for one in node.names)
        elif isinstance(node, ast.Attribute) and ast.unparse(node) == "torch.distributed":
            yield Import(node.lineno, "torch.distributed")  # which comes with torch


def own_imports(name: str, modules: dict[str, Module], package: str) -> dict[str, int]:
    """Other modules of the package that a module imports, and in which line first."""
    found: dict[str, int] = {}
    for line, imported in modules[name].imports:
        first, *parts = imported.split(".")
        while parts and ".".join(parts) not in modules:
            parts.pop()
        if first == package and parts and (other := ".".join(parts)) != name:
            found.setdefault(other, line)
    return found


def wrong_imports(
    modules: dict[str, Module], inside: dict[str, dict[str, int]], rules: Rules
) -> Iterator[str]:
    """What a room may not import, of the package and from outside."""
    for name, module in modules.items():
        if name in ("", "__main__"):
            continue
        if module.room not in rules.may_import:
            yield f"{module.file}: {module.room} is in no table of scripts/house_rooms.py"
            continue
        allowed = [module.room, *rules.may_import[module.room].split()]
        for other, line in inside[name].items():
            if not any(is_within(other, one) for one in allowed):
                yield f"{module.file}:{line}: {module.room} may not import {other}"
        for outside, rooms in rules.from_outside.items():
            lines = [line for line, imported in module.imports if is_within(imported, outside)]
            if lines and not any(is_within(name, room) for room in rooms):
                yield f"{module.file}:{min(lines)}: {module.room} may not import {outside}"


def wrong_imports_of_harness(harness: Path, package: str) -> Iterator[str]:
    """What of the plugin the harness may not import: it reads events by their types."""
    for file in sorted(harness.rglob("*.py")):
        where = file.relative_to(harness.parent)
        for line, name in imports_of(ast.parse(file.read_text(encoding="utf-8")), []):
            shared = any(is_within(name, f"{package}.{module}") for module in SHARED)
            if is_within(name, package) and not shared:
                yield f"{where}:{line}: eval may not import {name}"


def is_within(name: str, package: str) -> bool:
    """Whether it is that package or below it."""
    return name == package or name.startswith(f"{package}.")


def circles(modules: dict[str, Module], inside: dict[str, dict[str, int]]) -> Iterator[str]:
    """Ways of imports that lead back to where they began."""
    done: set[str] = set()

    def visit(name: str, way: list[str]) -> Iterator[str]:
        if name in way:
            circle = [*way[way.index(name) :], name]
            line = inside[circle[0]][circle[1]]
            yield f"{modules[name].file}:{line}: imports go in a circle: {' -> '.join(circle)}"
        elif name not in done:
            for other in inside[name]:
                yield from visit(other, [*way, name])
            done.add(name)

    for name in modules:
        yield from visit(name, [])


def long_files(modules: dict[str, Module]) -> Iterator[str]:
    """Files that do not fit on a few screens."""
    for name, module in modules.items():
        if module.lines > MAX_LINES and name not in TABLES:
            yield f"{module.file}:{module.lines}: longer than {MAX_LINES} lines: split it"


def names_alike(modules: dict[str, Module]) -> Iterator[str]:
    """Files, and folders, whose names differ by one letter: they are taken for each other."""
    files = {module.file.stem: module.file for module in modules.values()}
    folders = {module.file.parent.name: module.file.parent for module in modules.values()}
    for paths in (files, folders):
        for one, other in combinations(sorted(paths), 2):
            if differ_by_a_letter(one, other):
                yield f"{paths[other]}: its name and that of {paths[one]} differ by one letter"


def differ_by_a_letter(one: str, other: str) -> bool:
    """Whether one letter was put in, left out or replaced; v018 and v019 differ by a digit."""
    short, long = sorted((one, other), key=len)
    if one == other or len(long) - len(short) > 1:
        return False
    at = 0
    while at < len(short) and short[at] == long[at]:
        at += 1
    same_length = len(short) == len(long)
    changed = long[at] + (short[at] if same_length else "")
    return changed.isalpha() and short[at + same_length :] == long[at + 1 :]


def main() -> int:
    """Print every broken rule of the package, or of the one named."""
    found = problems(Path(sys.argv[1]) if len(sys.argv) > 1 else PACKAGE)
    for problem in found:
        print(problem)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
