# SPDX-License-Identifier: Apache-2.0
"""docs/architecture.md names every place where the package enters a collective or a meeting."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import torch.distributed as dist

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "vllm_eplb_plugin"

# Of torch: whatever takes a group and moves something, or waits.
OF_TORCH = re.compile(
    r"(all_|reduce|broadcast|scatter|gather|barrier|monitored_barrier|send|recv|isend|irecv|"
    r"batch_isend|new_(sub)?group|split_group|init_process_group)\w*"
)
OF_VLLM = {
    "_allreduce_list",
    "_node_count_with_rank_mapping",
    "all_gatherv",
    "combine",
    "eplb_step",
    "rearrange",
    "rearrange_expert_weights_inplace",
    "reduce_scatterv",
}
OURS = {
    *("agree", "hear", "hold", "meet", "part"),
    *("all_gather_uneven", "gather_ledger", "gather_objects", "gather_rows"),
    *("reduce_scatter_uneven", "renew_peers", "run_self_test", "sum_over_ranks"),
}


def test_every_collective_of_torch_is_recognised() -> None:
    found = {name for name in dir(dist) if OF_TORCH.fullmatch(name)}
    known = {"all_gather_object", "all_reduce", "all_to_all", "barrier", "broadcast", "reduce"}
    assert found >= known | {"batch_isend_irecv", "isend", "new_group", "scatter", "recv"}


def test_a_new_collective_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "new.py").write_text(
        "import torch.distributed as dist\n"
        "class Owner:\n"
        "    def method(self):\n"
        "        def inner():\n"
        "            dist.all_reduce(1)\n"
        "        return [meet(a) for a in b]\n"
        "def quiet():\n"
        "    store.get('key')\n"
    )
    assert set(collectives(tmp_path)) == {("new.py", "Owner.method")}


def test_the_table_names_each_collective_and_no_other() -> None:
    assert set(collectives(PACKAGE)) == set(table())


def collectives(package: Path) -> Iterator[tuple[str, str]]:
    """File and outermost function of each call that other ranks have to make, too."""
    for file in sorted(package.rglob("*.py")):
        if file.relative_to(package).parts[0] == "bench":  # one process
            continue
        tree = ast.parse(file.read_text())
        from_torch = {
            alias.asname or alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module == "torch.distributed"
            for alias in node.names
            if OF_TORCH.fullmatch(alias.name)
        }
        for name, function in functions(tree):
            calls = (node for node in ast.walk(function) if isinstance(node, ast.Call))
            if any(is_collective(call, from_torch) for call in calls):
                yield str(file.relative_to(package)), name


def functions(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """Functions of a module and methods of its classes, with what is nested in each."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, node
        elif isinstance(node, ast.ClassDef):
            for method in node.body:
                if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef):
                    yield f"{node.name}.{method.name}", method


def is_collective(call: ast.Call, from_torch: set[str]) -> bool:
    """Whether others have to call together."""
    if isinstance(call.func, ast.Name):
        return call.func.id in from_torch | OURS | OF_VLLM
    if not isinstance(call.func, ast.Attribute):
        return False
    owner, name = ast.unparse(call.func.value), call.func.attr
    if owner in ("dist", "torch.distributed"):
        return OF_TORCH.fullmatch(name) is not None
    return name in OURS | OF_VLLM


def table() -> Iterator[tuple[str, str]]:
    """The second column of the section: a file, and functions in it."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    section = page.partition("\n## Collectives\n")[2].partition("\n## ")[0]
    rows = [line.split(" | ") for line in section.splitlines() if line.startswith("| ")]
    for row in rows[1:]:
        file, *names = re.findall(r"`([^`]+)`", row[1])
        yield from ((file, name) for name in names)
