# SPDX-License-Identifier: Apache-2.0
"""Documented commands that take seconds and no server work, in the order of their page."""

import re
import shlex
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from eval.cli import app
from tests.builders.command_parsing import canonical, json_of
from tests.builders.documented_inputs import write_inputs
from tests.builders.pages import (
    blocks_of,
    pages_with_commands,
    shell_blocks,
)
from tests.builders.reader import lay_out
from tests.builders.run_by import HERE, run_by
from tests.builders.typed import Typed, typed
from vllm_eplb_plugin.bench.shapes import parse_shape
from vllm_eplb_plugin.cli.main import main

_OFFLINE = "docs/offline.md"
_SMALL_LAYERS = 3


def smaller(words: Sequence[str]) -> list[str]:
    """A command that takes no longer than a test may: benchmarks play fewer experts and windows."""
    if words[:2] != ["vllm-eplb", "bench"]:
        return [word.removesuffix("...") for word in words]
    found = list(words)
    for at, word in enumerate(words[:-1]):
        if word == "--shape":
            found[at + 1] = small_shape(words[at + 1])
    is_recorded = any(load in words for load in ("own", "another", "mix", "domains"))
    if "--shape" not in words and not is_recorded:
        found += ["--shape", small_shape("DeepSeek-V3")]
    found += ["--windows", "3"]
    if words[2] != "simulation":
        found += ["--seeds", "1"]
    return [*found, "--rounds", "0"] if words[2] == "plan" else found


def small_shape(name: str) -> str:
    """Of as many groups and nodes, with fewer experts on fewer ranks."""
    shape = parse_shape(name)
    if shape.layers <= _SMALL_LAYERS:
        return name
    return f"2x16+8/{min(2, shape.groups)}x{min(2, shape.nodes)}x4"


def carried_out(words: Sequence[str]) -> Result:
    application, rest = (main, words[1:]) if words[0] == "vllm-eplb" else (app, words[3:])
    return CliRunner().invoke(application, list(rest), env={"COLUMNS": "80"})


@pytest.mark.parametrize("page", pages_with_commands())
def test_cheap_commands_of_a_page_work(
    page: str,
    here: Path,
    commands_of: Callable[[str], list[Typed]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lay_out(page, here)
    write_inputs(here, "".join(block.text for block in shell_blocks(blocks_of(page))))
    done = set()
    for one in commands_of(page):
        words = canonical(one.words)
        again = tuple(smaller(words)) if run_by(words) == HERE else ()
        if not again or again in done or one.block.needs_gpus:
            continue
        done.add(again)
        with monkeypatch.context() as patch:
            for name, value in one.environment.items():
                patch.setenv(name, value)
            if one.environment.get("PYTHONPATH") == ".":
                patch.syspath_prepend(str(here))
            result = carried_out(again)
        # Of a gate it is the verdict, on runs that never were.
        expected = (0, 1, 3) if "gate" in words else (0,)
        said = f"{one.block.where}: {shlex.join(again)}: {result.output}{result.exception!r}"
        assert result.exit_code in expected, said
        assert result.exception is None or isinstance(result.exception, SystemExit), said


def test_what_the_page_of_six_commands_shows_is_what_they_print(here: Path, shell: Path) -> None:
    lay_out(_OFFLINE, here)
    write_inputs(here, "")
    compared = 0
    for block, shown in pairwise(blocks_of(_OFFLINE)):
        if block.language != "bash" or shown.language:
            continue
        folder = shell / str(block.line)
        folder.mkdir()
        words = canonical(typed([block], folder)[0].words)
        if run_by(words) != HERE:
            continue
        printed = carried_out(words).output
        lines = iter(map(without_time, printed.splitlines()))
        for line in map(without_time, shown.text.splitlines()):
            assert line in lines, f"{shown.where}: {line!r} is not what it prints:\n{printed}"
        compared += 1
    assert compared == 3


def without_time(line: str) -> str:
    """A line of a table without the milliseconds, the last column but one; and without spaces."""
    return " ".join(re.sub(r"\s\d+\.\d\s+(\S+)$", r" \1", line.rstrip()).split())


def test_it_serves_by_what_the_advice_says(shell: Path) -> None:
    blocks = blocks_of(_OFFLINE)
    [advice] = re.findall(r"^--enable-eplb .*$", "".join(one.text for one in blocks), re.M)
    advised = shlex.split(advice)
    first, second = (
        one.words for one in typed(shell_blocks(blocks), shell) if one.words[0] == "vllm"
    )
    assert json_of(second, "--eplb-config") == json_of(advised, "--eplb-config")
    plugin = json_of(second, "--additional-config")["eplb_plugin"]
    assert plugin == {"loopback": True} | json_of(advised, "--additional-config")["eplb_plugin"]
    recorded = json_of(first, "--additional-config")["eplb_plugin"]["recording"]["dir"]
    assert plugin["planning"]["initial"] == recorded == "loads"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("vllm-eplb simulate runs/NAME...", "vllm-eplb simulate runs/NAME"),
        (
            "vllm-eplb bench plan --shape 58x256+32/8x4x32 --shape Qwen3-30B",
            "vllm-eplb bench plan --shape 2x16+8/2x2x4 --shape 2x16+8/1x1x4 --windows 3 --seeds 1 "
            "--rounds 0",
        ),
        (
            "vllm-eplb bench schedule --load domains",
            "vllm-eplb bench schedule --load domains --windows 3 --seeds 1",
        ),
        (
            "vllm-eplb bench simulation --load domains --shape 3x64+16/1x1x8",
            "vllm-eplb bench simulation --load domains --shape 3x64+16/1x1x8 --windows 3",
        ),
    ],
)
def test_only_what_takes_long_is_made_smaller(text: str, expected: str) -> None:
    assert " ".join(smaller(text.split())) == expected
