# SPDX-License-Identifier: Apache-2.0
"""The options of `vllm serve`, read from the installed vLLM's sources: importing it takes 15 s."""

import ast
import difflib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple


class _Option(NamedTuple):
    is_flag: bool
    values: frozenset[Any] | None
    """All that it takes; None: they do not stand in the sources."""


class _Configurations(NamedTuple):
    """What the classes say that options are made from."""

    literals: dict[str, frozenset[Any]]
    """Values by the name that they have together."""
    fields: dict[str, list[ast.expr]]
    """Annotations by the name of a field, of all classes that have one."""
    of_eplb: set[str]
    """Names of the fields of ``--eplb-config``."""


def installed_vllm() -> Path | None:
    """The folder of the installed vLLM; None: there is none."""
    found = find_spec("vllm")
    places = found.submodule_search_locations if found else None
    return Path(next(iter(places))) if places else None


def check_serve(words: Sequence[str]) -> None:
    """Check what stands behind `vllm serve`.

    Raises:
        ValueError: An option is none of the installed vLLM's, has a value that it does not take,
            or has none.
    """
    rest = list(words)
    if rest and not rest[0].startswith("-"):
        del rest[0]
    while rest:
        word, equals, value = rest.pop(0).partition("=")
        name, dot, _ = word.replace("_", "-").partition(".")
        option = _options().get(name)
        if option is None:
            raise ValueError(f"vllm serve has no option {name}{_nearest(name, _options())}")
        if option.is_flag:
            continue
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise ValueError(f"vllm serve {name} has no value")
            value = rest.pop(0)
        if option.values is not None and value not in option.values:
            known = ", ".join(sorted(map(str, option.values)))
            raise ValueError(f"vllm serve {name} {value}: it takes {known}")
        if name == "--eplb-config" and not dot:
            check_eplb_config(json.loads(value))


def check_eplb_config(values: Mapping[str, Any]) -> None:
    """Check the keys of ``--eplb-config``.

    Raises:
        ValueError: The installed vLLM knows one of them not.
    """
    known = _configurations().of_eplb
    for key in values:
        if key not in known:
            raise ValueError(f"--eplb-config has no key {key}{_nearest(key, known)}")


def _nearest(name: str, known: Collection[str]) -> str:
    return f", the nearest is {difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]}"


@cache
def _options() -> dict[str, _Option]:
    root = installed_vllm()
    assert root is not None
    found = {}
    for file in (root / "engine" / "arg_utils.py", *root.glob("entrypoints/**/cli_args.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument":
                found |= _added(node)
            elif isinstance(node, ast.ClassDef) and node.name.endswith("FrontendArgs"):
                for name, annotation in _annotated(node):
                    found |= _of_field([f"--{name.replace('_', '-')}"], [annotation])
    return found


def _added(call: ast.Call) -> dict[str, _Option]:
    """What a call of `add_argument` adds, by name."""
    names = [str(one.value) for one in call.args if isinstance(one, ast.Constant)]
    is_flag = False
    for keyword in call.keywords:
        if keyword.arg == "action":
            is_flag = ast.unparse(keyword.value).startswith("'store_")
        # As `**parallel_kwargs["enable_eplb"]`, which is made from the field of that name.
        for part in ast.walk(keyword.value) if keyword.arg is None else ():
            if isinstance(part, ast.Subscript) and isinstance(part.slice, ast.Constant):
                return _of_field(names, _configurations().fields.get(part.slice.value, []))
    return dict.fromkeys(names, _Option(is_flag, None))


def _of_field(names: list[str], annotations: list[ast.expr]) -> dict[str, _Option]:
    parts = [part for one in annotations for part in ast.unparse(one).split(" | ")]
    if "bool" in parts:
        opposite = [f"--no-{name.removeprefix('--')}" for name in names]
        return dict.fromkeys([*names, *opposite], _Option(True, None))
    values = [_values(one) for one in annotations]
    known = [one for one in values if one is not None]
    all_known = bool(known) and len(known) == len(values)
    return dict.fromkeys(names, _Option(False, frozenset().union(*known) if all_known else None))


def _values(annotation: ast.expr) -> frozenset[Any] | None:
    """What a field takes, if its Literals say so."""
    if isinstance(annotation, ast.BinOp):
        left, right = _values(annotation.left), _values(annotation.right)
        return None if left is None or right is None else left | right
    text = ast.unparse(annotation)
    if text == "None":
        return frozenset()
    return _literals(annotation) if _is_literal(text) else _configurations().literals.get(text)


@cache
def _configurations() -> _Configurations:
    root = installed_vllm()
    assert root is not None
    found = _Configurations({}, {}, set())
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in root.glob("config/*.py")]
    for node in [node for tree in trees for node in tree.body]:
        if isinstance(node, ast.Assign) and _is_literal(ast.unparse(node.value)):
            found.literals[ast.unparse(node.targets[0])] = _literals(node.value)
        elif isinstance(node, ast.ClassDef):
            for name, annotation in _annotated(node):
                found.fields.setdefault(name, []).append(annotation)
                if node.name == "EPLBConfig":
                    found.of_eplb.add(name)
    return found


def _annotated(node: ast.ClassDef) -> Iterator[tuple[str, ast.expr]]:
    for one in node.body:
        if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name):
            yield one.target.id, one.annotation


def _is_literal(text: str) -> bool:
    return text.startswith("Literal[")


def _literals(annotation: ast.expr) -> frozenset[Any]:
    return frozenset(one.value for one in ast.walk(annotation) if isinstance(one, ast.Constant))
