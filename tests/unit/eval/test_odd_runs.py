# SPDX-License-Identifier: Apache-2.0
"""A kept run that somebody or something altered has a report, or a message: no traceback."""

import io
import json
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from eval.errors import EvaluationError
from eval.report.console import PlainConsole
from eval.report.files import write_reports
from eval.report.junit import write_junit
from eval.report.terminal import print_report
from eval.results.folder import read_result
from tests.builders.runs import Shape, write_run

FILES = [
    "result.json", "run.json", "arms/async/samples.jsonl", "arms/async/events/rank0.jsonl",
]  # fmt: skip
ODD = [
    math.nan, math.inf, -1, 0, True, 1e308, 2**70, "", "x", "\ud800", "off", "control-x", "[/red]",
    "2026-01-01", None, [], {}, [[]], [None],
]  # fmt: skip


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Everything inside, as what it is in and its key or index."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        yield value, key
        if isinstance(item, dict | list):
            yield from places(item)


def alter(file: Path, chance: random.Random) -> None:
    """Set, remove or repeat one thing in one line."""
    whole = file.suffix == ".json"
    lines = [file.read_text()] if whole else file.read_text().splitlines()
    number = chance.randrange(len(lines))
    value = json.loads(lines[number])
    inside, key = chance.choice(list(places(value)))
    change = chance.choice(["set", "set", "remove", "repeat"])
    if change == "remove":
        del inside[key]
    elif change == "repeat" and isinstance(inside, list):
        inside.append(inside[key])
    else:
        inside[key] = chance.choice(ODD)
    lines[number] = json.dumps(value)
    file.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("file", FILES)
def test_an_altered_run_is_reported_or_refused(tmp_path: Path, file: str) -> None:
    shape = Shape(questions=4, rearrangements=2, layers=2, experts=4, redundant=2)
    folder = write_run(tmp_path / "run", shape)
    sound = (folder / file).read_text()
    ends = {"reported": 0, "refused": 0}
    for seed in range(40):
        (folder / file).write_text(sound)
        alter(folder / file, random.Random(seed))
        try:
            result = read_result(folder)
            write_junit(result, tmp_path / "junit.xml")
            print_report(result, PlainConsole(file=io.StringIO(), width=160))
            write_reports([folder], tmp_path / "report.md", tmp_path / "report.html")
        except EvaluationError:
            ends["refused"] += 1
        else:
            ends["reported"] += 1
    assert min(ends.values()) > 0
