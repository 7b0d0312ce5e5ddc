# SPDX-License-Identifier: Apache-2.0
"""Write the tables of fields in docs/result.md from the models of the result.

    .venv/bin/python scripts/result_document.py            # --check: only say whether they are

The text of a field is its docstring in `eval.results` and `eval.activity.counts`. A table stands
between ``<!-- fields: Model -->`` and ``<!-- end -->``; all else in the page is written by hand.
"""

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel

from eval.activity.moves import Moves
from eval.activity.totals import ModelActivity
from eval.results.decision import Decision
from eval.results.elsewhere import ServedElsewhere
from eval.results.latency import Distribution, LatencyTimes, LatencyWorkload
from eval.results.memory import MemorySample, MemoryUse
from eval.results.oracle_result import OracleResult
from eval.results.samples import Sample, Tokens
from eval.results.schema import ArmResult, ControlResult, Result, RuleResult, TaskResult
from eval.results.stress import LoadResult, StressWorkload
from eval.results.surroundings import Machine, Seeds, Versions
from eval.results.throughput import Measurement, Percentiles, ThroughputWorkload, Traffic
from eval.results.trial import FaultSeen, Happening, SameAnswers, Trial
from scripts.pages import write_or_compare

PAGE = Path(__file__).parents[1] / "docs" / "result.md"

MODELS: dict[str, type[BaseModel]] = {
    model.__name__: model
    for model in (
        Result, RuleResult, ControlResult, ArmResult, ModelActivity, Moves, TaskResult, Decision,
        ServedElsewhere, OracleResult, Versions, Machine, Seeds, Sample, Tokens,
        LatencyWorkload, LatencyTimes,
        Distribution, StressWorkload, LoadResult, MemoryUse, MemorySample, Trial, FaultSeen,
        SameAnswers, Happening, ThroughputWorkload, Traffic, Measurement, Percentiles,
    )
}  # fmt: skip

_TABLE = re.compile(r"(<!-- fields: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def document(page: str) -> str:
    """The page with its tables made anew.

    Raises:
        ValueError: A table is of no model, a model has none, or a field has no docstring.
    """
    told = [found[2] for found in _TABLE.finditer(page)]
    if sorted(told) != sorted(MODELS):
        raise ValueError(f"the page has tables of {told}, the models are {[*MODELS]}")
    return _TABLE.sub(lambda found: f"{found[1]}{table(MODELS[found[2]])}\n{found[3]}", page)


def table(model: type[BaseModel]) -> str:
    """One row for each field, as it is called in JSON."""
    types, texts = get_type_hints(model), dict(_docstrings(model))
    rows = [
        f"| `{field.alias or name}` | {_in_words(types[name])} | {_told(model, name, texts)} |\n"
        for name, field in model.model_fields.items()
    ]
    return "".join(["| field | type | meaning |\n|---|---|---|\n", *rows])


def _told(model: type[BaseModel], name: str, texts: dict[str, str]) -> str:
    if name not in texts:
        raise ValueError(f"{model.__name__}.{name} has no docstring")
    text = texts[name].replace("``", "`").replace("|", "\\|")
    return re.sub(r"docs/([\w-]+\.md)", r"[\1](\1)", text)


def _docstrings(model: type[BaseModel]) -> Iterator[tuple[str, str]]:
    """The string under each field, also of those that are inherited; the nearest comes last."""
    for one in reversed(model.__mro__):
        if not issubclass(one, BaseModel) or one is BaseModel:
            continue
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(one))).body
        assert isinstance(definition, ast.ClassDef)
        for statement, following in zip(definition.body, definition.body[1:], strict=False):
            if not isinstance(statement, ast.AnnAssign) or not isinstance(following, ast.Expr):
                continue
            if isinstance(statement.target, ast.Name) and isinstance(following.value, ast.Constant):
                yield statement.target.id, " ".join(str(following.value.value).split())


def _in_words(kind: Any) -> str:
    """A type as people call it."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        rest = [_in_words(one) for one in arguments if one is not NoneType]
        return " or ".join([*rest, *["`null`"] * (NoneType in arguments)])
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin is not None and issubclass(origin, dict):
        return f"object of {_in_words(arguments[1])}"
    if origin is not None:
        return f"list of {_in_words(arguments[0])}".replace("of list", "of lists")
    if kind in MODELS.values() or issubclass(kind, BaseModel):
        return "object"
    return {str: "string", datetime: "time"}.get(kind, kind.__name__)


def main(arguments: list[str]) -> int:
    """Write the page, or with ``--check`` only compare."""
    unlike = "is not as the models say: run scripts/result_document.py"
    return write_or_compare(PAGE, document, arguments, unlike)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
