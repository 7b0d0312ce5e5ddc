# SPDX-License-Identifier: Apache-2.0
"""Python, JSON, YAML and TOML that pages show can be used as they stand there."""

import builtins
import dis
import json
import shlex
from collections.abc import Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import tomllib
import yaml
from jsonschema import Draft202012Validator

from eval.config.loading import load_config
from eval.errors import ConfigError
from tests.builders.command_parsing import canonical, check_command, check_names
from tests.builders.pages import REPOSITORY, Block, blocks_of, pages
from tests.builders.reader import lay_out
from vllm_eplb_plugin.planning.registry import ENTRY_POINTS

_EVENTS = REPOSITORY / "docs" / "events.schema.json"
_ACTION = REPOSITORY / "ci" / "evaluation-action" / "action.yml"
_SYNOPSES = ("python -m eval ", "vllm-eplb ")


def of_language(language: str) -> list[Any]:
    blocks = [block for page in pages() for block in blocks_of(page)]
    return [pytest.param(one, id=one.where) for one in blocks if one.language == language]


def check_yaml(block: Block, folder: Path) -> None:
    """What the YAML of a page is has to be seen by its keys."""
    values = yaml.safe_load(block.text)
    if "arms" in values:
        file = folder / "documented.yaml"
        file.write_text(block.text, encoding="utf-8")
        load_config(file)
    elif "steps" in values:
        for step in values["steps"]:
            check_step(step)
    else:
        pytest.fail(f"{block.where}: say in check_yaml what checks it")


def check_step(step: Mapping[str, Any]) -> None:
    """A step of a workflow that uses this repository's action."""
    if not step["uses"].startswith("./"):
        return
    assert REPOSITORY / step["uses"] == _ACTION.parent
    inputs = yaml.safe_load(_ACTION.read_text(encoding="utf-8"))["inputs"]
    assert step["with"].keys() <= inputs.keys()
    required = {name for name, one in inputs.items() if one.get("required")}
    assert required <= step["with"].keys()
    check_command(canonical(shlex.split(step["with"]["command"])), {})


@pytest.mark.parametrize("block", of_language("python"))
def test_python_runs_and_names_only_what_there_is(block: Block) -> None:
    code = compile(block.text, block.where, "exec")
    names: dict[str, Any] = {}
    exec(code, names)
    functions = [code]
    while functions:
        function = functions.pop()
        functions += [one for one in function.co_consts if hasattr(one, "co_names")]
        unknown = {
            name
            for name in globals_read(function)
            if name not in names and not hasattr(builtins, name)
        }
        assert not unknown, f"{block.where}: {unknown} are not imported"


def globals_read(code: Any) -> set[str]:
    return {one.argval for one in dis.get_instructions(code) if one.opname == "LOAD_GLOBAL"}


@pytest.mark.parametrize("block", of_language("json"))
def test_json_is_that_of_an_event(block: Block) -> None:
    value = json.loads(block.text)
    assert "event" in value, f"{block.where}: say here what checks it"
    schema = json.loads(_EVENTS.read_text(encoding="utf-8"))
    Draft202012Validator(schema).validate(value)


@pytest.mark.parametrize("block", of_language("yaml"))
def test_yaml_is_a_configuration_or_steps_of_a_workflow(block: Block, here: Path) -> None:
    lay_out(block.page, here)
    check_yaml(block, here)


@pytest.mark.parametrize("block", of_language("toml"))
def test_toml_names_a_policy_that_the_page_shows(
    block: Block, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay_out(block.page, here)
    monkeypatch.syspath_prepend(str(here))
    points = tomllib.loads(block.text)["project"]["entry-points"]
    assert points.keys() == {ENTRY_POINTS}
    for name, place in points[ENTRY_POINTS].items():
        assert callable(EntryPoint(name, place, ENTRY_POINTS).load()())


@pytest.mark.parametrize("block", of_language(""))
def test_a_synopsis_has_the_options_that_there_are(block: Block) -> None:
    for line in block.text.splitlines():
        if line.startswith(_SYNOPSES):
            check_names(canonical(line.replace("[", " ").replace("]", " ").split()))


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("name: x\nmodel: m\ntasks: [{name: gsm8k, question: 3}]\narms: [{name: off}]\n", "quest"),
        ("steps: [{uses: ./ci/evaluation-action, with: {command: ls, run: x, runs: y}}]\n", "runs"),
        ("steps: [{uses: ./ci/evaluation-action, with: {command: helm x, run: x}}]\n", "helm"),
        ("steps: [{uses: ./ci/evaluations}]\n", "evaluations"),
    ],
)
def test_yaml_that_is_wrong_is_told_of(text: str, wrong: str, here: Path) -> None:
    lay_out("docs/ci.md", here)
    with pytest.raises((AssertionError, ConfigError, ValueError), match=wrong):
        check_yaml(Block("page.md", 7, "yaml", (), text), here)
