# SPDX-License-Identifier: Apache-2.0
"""What GitHub reads of this repository: workflows and forms for issues."""

import os
import re
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from tests.unit.scripts.checkout import REPOSITORY
from vllm_eplb_plugin.cli.main import main

WORKFLOWS = sorted((REPOSITORY / ".github/workflows").glob("*.yml"))
FORMS = sorted((REPOSITORY / ".github/ISSUE_TEMPLATE").glob("[0-9]*.yml"))


def read(file: Path) -> dict[Any, Any]:
    found: dict[Any, Any] = yaml.safe_load(file.read_text())
    return found


def steps(workflow: dict[Any, Any]) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_a_workflow_names_what_there_is_and_may_only_read_by_default(file: Path) -> None:
    workflow = read(file)
    assert workflow["permissions"] == {"contents": "read"}
    assert all("timeout-minutes" in job for job in workflow["jobs"].values())
    for step in steps(workflow):
        assert ("run" in step) != ("uses" in step)
        for script in re.findall(r"(?<![\w/.])(?:scripts|ci)/[\w-]+", step.get("run", "")):
            assert os.access(REPOSITORY / script, os.X_OK) or Path(script).suffix, script


def test_every_action_of_others_has_one_version() -> None:
    used = {step["uses"] for file in WORKFLOWS for step in steps(read(file)) if "uses" in step}
    names = [one.partition("@")[0] for one in used]
    assert sorted(names) == sorted(set(names))
    assert all(re.search(r"@v\d+$", one) for one in used if not one.startswith("./"))


def test_a_release_is_made_by_a_tag_of_a_version_and_by_nothing_else() -> None:
    workflow = read(REPOSITORY / ".github/workflows/release.yml")
    # YAML 1.1 reads the key ``on`` as true.
    assert workflow[True] == {"push": {"tags": ["v*"]}}
    done = [step.get("run", step.get("uses", "")) for step in steps(workflow)]
    order = ["build-release", "test-wheel", "upload-artifact", "gh release create"]
    at = [next(n for n, one in enumerate(done) if name in one) for name in order]
    assert at == sorted(at)
    assert '"$GITHUB_REF_NAME"' in done[at[0]]


def test_a_new_release_is_looked_for_every_week_and_told_whatever_is_found() -> None:
    workflow = read(REPOSITORY / ".github/workflows/new-release.yml")
    assert set(workflow[True]) == {"schedule", "workflow_dispatch"}
    [job] = workflow["jobs"].values()
    assert job["permissions"] == {"contents": "read", "issues": "write"}
    [compare, tell, end] = [step for step in job["steps"] if "run" in step]
    assert compare["shell"] == "bash" and "|| code=$?" in compare["run"]
    [folder] = re.findall(r"--reports (\w+)", compare["run"])
    assert f"hashFiles('{folder}/*.md')" in tell["if"] and f"{folder}/*.md" in tell["run"]
    script = (REPOSITORY / "ci/open-issue").read_text()
    assert set(re.findall(r"\$([A-Z_]{3,})\b", script)) <= set(tell["env"])
    assert "-le 1" in end["run"]


@pytest.mark.parametrize("file", FORMS, ids=lambda file: file.stem)
def test_a_form_asks_for_what_can_be_printed(file: Path) -> None:
    form = read(file)
    assert set(form) == {"name", "description", "body"}
    asked = [one for one in form["body"] if one["type"] != "markdown"]
    names = [one["id"] for one in asked]
    assert names == sorted(set(names), key=names.index)
    assert all(set(one) <= {"type", "id", "attributes", "validations"} for one in asked)
    assert "vllm-eplb doctor --json" in [one["attributes"]["label"] for one in asked]
    commands = typer.main.get_command(main).commands  # type: ignore[attr-defined]
    for command in re.findall(r"vllm-eplb (\w+)", file.read_text()):
        assert command in commands


def test_a_server_that_goes_wrong_is_told_of_with_what_shows_it() -> None:
    form = read(FORMS[0])
    needed = {
        one["id"] for one in form["body"] if one.get("validations", {}).get("required", False)
    }
    assert needed == {"seen", "command", "doctor", "line"}
    assert "EPLB is vllm-eplb-plugin's:" in FORMS[0].read_text()
    assert "status" in {one.get("id") for one in form["body"]}


def test_every_page_that_a_form_or_a_policy_names_is_there() -> None:
    pages = [*FORMS, REPOSITORY / "SECURITY.md", REPOSITORY / "CONTRIBUTING.md"]
    path = re.compile(r"(?<![\w.])(?:docs|scripts|ci|engine)/[\w./-]+\w")
    for page in pages:
        for named in path.findall(page.read_text()):
            folder = REPOSITORY / ("vllm_eplb_plugin" if named.startswith("engine") else "")
            assert (folder / named).exists(), f"{page.name}: {named}"
