# SPDX-License-Identifier: Apache-2.0
"""Which room of the package may import which, and that imports never go in a circle."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PACKAGE = REPOSITORY / "vllm_eplb_plugin"

MAY_IMPORT = {
    "releases": "",
    "settings": "",
    "processor": "",
    "overrides": "",
    "placement": "",
    "advice": "releases",
    "planning": "placement",
    "observe": "placement",
    "transfer": "overrides placement",
    "engine": "compatibility observe overrides placement planning settings transfer",
    "faults": "overrides settings",
    "loopback": "compatibility engine.refusals faults overrides processor settings",
    "front_end": "compatibility loopback overrides settings",
    "compatibility": "overrides releases",
    "activation": "overrides settings",
    "bench": "advice compatibility engine observe placement planning processor releases settings",
    "cli": "advice bench compatibility faults overrides placement planning processor releases "
    "settings",
}
"""What each room may import besides itself; DESIGN says why."""

MAY_IMPORT_VLLM = {"bench", "cli", "engine", "front_end", "loopback", "faults"}
MAX_LINES = 250


def module_of(file: Path) -> str:
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


MODULES = {module_of(file): file for file in sorted(PACKAGE.rglob("*.py"))}


def imports_of(file: Path, package: str) -> Iterator[str]:
    """What a file imports of a package, also inside functions, but not for types alone."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for_types = {
        child
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in for_types:
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] == package)


def own_imports(module: str) -> set[str]:
    """Modules of the package that a module imports."""
    found = set()
    for name in imports_of(MODULES[module], "vllm_eplb_plugin"):
        parts = name.split(".")[1:]
        while parts and ".".join(parts) not in MODULES:
            parts.pop()
        found.add(".".join(parts))
    return found - {module, ""}


@pytest.mark.parametrize("module", [name for name in MODULES if name])
def test_a_room_imports_only_what_it_may(module: str) -> None:
    room = module.split(".")[0]
    allowed = {room, *MAY_IMPORT[room].split()}
    for other in own_imports(module):
        assert any(other == one or other.startswith(f"{one}.") for one in allowed), other
    if room not in MAY_IMPORT_VLLM:
        assert not list(imports_of(MODULES[module], "vllm"))


def test_the_harness_shares_nothing_with_the_plugin_but_the_types_of_events() -> None:
    shared = "vllm_eplb_plugin.observe.events"
    users = set()
    for file in (REPOSITORY / "eval").rglob("*.py"):
        assert not list(imports_of(file, "vllm")), file
        for name in imports_of(file, "vllm_eplb_plugin"):
            assert f"{name}.".startswith(f"{shared}."), (file, name)
            users.add(file.name)
    assert users


def test_imports_never_go_in_a_circle() -> None:
    edges = {module: own_imports(module) for module in MODULES}
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " -> ".join([*way, module])
        if module not in done:
            for other in edges[module]:
                visit(other, (*way, module))
            done.add(module)

    for module in MODULES:
        visit(module, ())


def test_a_file_fits_on_a_few_screens_and_has_a_name_of_its_own() -> None:
    for file in MODULES.values():
        assert len(file.read_text(encoding="utf-8").splitlines()) <= MAX_LINES, file
    names = [file.stem for file in MODULES.values() if not file.stem.startswith("__")]
    for name in names:
        assert f"{name}s" not in names, name
