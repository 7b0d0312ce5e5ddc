# SPDX-License-Identifier: Apache-2.0
"""Write what is told of events, docs/events.md and docs/events.schema.json, from their types.

    .venv/bin/python scripts/events_document.py

The text of a kind or a field is its docstring in `vllm_eplb_plugin.observe.events`.
"""

import ast
import dataclasses
import functools
import inspect
import json
import operator
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from pydantic import BaseModel, Field, TypeAdapter, create_model

from vllm_eplb_plugin.observe.events import (
    EVENTS,
    SCHEMA_VERSION,
    Event,
    Head,
    LayerCommitted,
    ModelEvent,
    RearrangementEnded,
    RearrangementEvent,
    Source,
)

DOCS = Path(__file__).parents[1] / "docs"

_HEAD = """\
<!-- Made by scripts/events_document.py from vllm_eplb_plugin/observe/events.py. -->
# Events

With the [setting](settings.md) `events_dir`, every EP rank appends what happens to its experts to a
file of its own in that folder, one JSON object a line, such as (here on two)

```json
{example}
```

The file is `rank<N>.jsonl`, where N is the rank in the whole server (`global_rank`). A thread of
its own makes and writes the lines, within a second, so that neither a full disk nor a slow one
holds the model up. This is schema {schema}, which is there [for programs](events.schema.json), too.

Layers are counted from 0 among the MoE layers of the pipeline stage. A slot is a physical expert,
numbered from 0 over all EP ranks of the stage.
"""
_EXAMPLE = LayerCommitted("some/moe", 0, 12, 3600, "async", 4, 9)


def document() -> str:
    """The page."""
    example = json.dumps(_EXAMPLE.line(Source(0, 0, 0), 1795632425.6))
    blocks = [
        _HEAD.format(example=example.replace(' "model"', '\n "model"'), schema=SCHEMA_VERSION),
        "Every event has\n",
        _table(Head, Source),
        f"All but {_kinds(one for one in EVENTS if not issubclass(one, ModelEvent))} have\n",
        _table(ModelEvent),
        "From its start to its outcome, events of a rearrangement have\n",
        _table(RearrangementEvent),
    ]
    outcomes = False
    for kind in EVENTS:
        is_outcome = issubclass(kind, RearrangementEnded)
        if is_outcome and not outcomes:
            blocks += ["## Outcomes\n", f"{_text(RearrangementEnded)} All five have\n"]
            blocks.append(_table(RearrangementEnded))
        outcomes = outcomes or is_outcome
        blocks.append(f"##{'#' * is_outcome} `{kind.kind}`\n")
        blocks.append(f"{_text(kind)}\n")
        blocks.append(_table(kind))
    return "\n".join(block for block in blocks if block)


def schema() -> dict[str, Any]:
    """The JSON schema of a line."""
    lines: Any = functools.reduce(operator.or_, map(_line, EVENTS))
    union = Annotated[lines, Field(discriminator="event_")]
    made: dict[str, Any] = TypeAdapter(union).json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | made


def _line(kind: type[Event]) -> type[BaseModel]:
    types = get_type_hints(Head) | get_type_hints(Source) | get_type_hints(kind)
    types |= {"schema": Literal[SCHEMA_VERSION], "event": Literal[kind.kind]}
    fields: dict[str, Any] = {
        # A model of pydantic has a method `schema`.
        f"{name}_": (types[name], Field(alias=name, title=name, description=text))
        for one in (Head, Source, *reversed(kind.__mro__))
        for name, text in _fields(one)
    }
    return create_model(kind.__name__, __doc__=_text(kind), **fields)


def _kinds(kinds: Iterable[type[Event]]) -> str:
    return " and ".join(f"`{kind.kind}`" for kind in kinds)


def _table(*classes: type) -> str:
    """One row for each field that is declared in these classes; empty without any."""
    rows = [
        f"| `{name}` | {_in_words(get_type_hints(one)[name])} | {text} |\n"
        for one in classes
        for name, text in _fields(one)
    ]
    return "".join(["| field | type | meaning |\n|---|---|---|\n" * bool(rows), *rows])


def _text(one: type) -> str:
    """The docstring, in which only paragraphs end lines."""
    return "\n\n".join(
        textwrap.fill(part, 100, break_on_hyphens=False)
        for part in inspect.cleandoc(one.__doc__ or "").split("\n\n")
    )


def _fields(one: type) -> Iterator[tuple[str, str]]:
    """Fields that a class itself declares, each with the docstring under it."""
    if not dataclasses.is_dataclass(one):
        return
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(one))).body
    assert isinstance(definition, ast.ClassDef)
    declared = {field.name for field in dataclasses.fields(one)}
    for statement, following in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            if statement.target.id not in declared:
                continue
            if not isinstance(following, ast.Expr):
                raise ValueError(f"{one.__name__}.{statement.target.id} has no docstring")
            yield statement.target.id, " ".join(ast.literal_eval(following.value).split())


def _in_words(kind: Any) -> str:
    """A type as people call it."""
    arguments = get_args(kind)
    if NoneType in arguments:
        rest = [_in_words(one) for one in arguments if one is not NoneType]
        return " or ".join([*rest, "`null`"])
    if get_origin(kind) is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if get_origin(kind) is list:
        return f"list of {_in_words(arguments[0])}".replace("of list", "of lists")
    return {str: "string"}.get(kind, kind.__name__)


if __name__ == "__main__":
    (DOCS / "events.md").write_text(document(), encoding="utf-8")
    text = json.dumps(schema(), indent=1)
    (DOCS / "events.schema.json").write_text(f"{text}\n", encoding="utf-8")
