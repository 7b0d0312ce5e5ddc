# SPDX-License-Identifier: Apache-2.0
"""What the GitHub action does: its steps' scripts run, and GitHub's own `gh` stood in for."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.builders.harness import Harness, small_config

ROOT = Path(__file__).parents[2]
ACTION = ROOT / "ci" / "evaluation-action"

GH = """#!{python}
import json, sys
from pathlib import Path
arguments = sys.argv[1:]
with open("asked.jsonl", "a") as file:
    body = [a.removeprefix("body=@") for a in arguments if a.startswith("body=@")]
    print(json.dumps([arguments, Path(body[0]).read_text() if body else ""]), file=file)
known = json.loads(Path("known.json").read_text())
if "--paginate" in arguments:
    sys.exit("HTTP 403") if known is None else print("\\n".join(map(str, known)))
sys.exit(known is None)
"""


@pytest.fixture
def harness(forked_harness: Harness) -> Harness:
    """With a stand-in for `gh`, and a file for each of GitHub's."""
    gh = forked_harness.folder / "gh"
    gh.write_text(GH.format(python=sys.executable))
    gh.chmod(0o755)
    forked_harness.environment |= {
        "PATH": f"{forked_harness.folder}:{forked_harness.environment['PATH']}",
        "PYTHON": sys.executable,
        "RUN": "small",
        "REPOSITORY": "someone/something",
        "PULL_REQUEST": "7",
        "ARTEFACTS": "https://github.example/runs/1",
        "GITHUB_STEP_SUMMARY": str(forked_harness.folder / "summary"),
        "GITHUB_OUTPUT": str(forked_harness.folder / "output"),
    }
    return forked_harness


def step(harness: Harness, name: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [ACTION / name],
        cwd=harness.folder,
        env={**harness.environment, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def outputs(harness: Harness) -> dict[str, str]:
    lines = (harness.folder / "output").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)


def comment(harness: Harness, known: list[int] | None) -> list[tuple[list[str], str]]:
    """What `gh` was asked, with the comment, where these comments are the run's."""
    (harness.folder / "known.json").write_text(json.dumps(known))
    done = step(harness, "comment")
    assert done.returncode == 0, done.stderr
    assert ("pull-requests: write" in done.stderr) == (known is None)
    lines = (harness.folder / "asked.jsonl").read_text().splitlines()
    return [tuple(json.loads(line)) for line in lines]


@pytest.mark.parametrize(
    ("behaviour", "verdict", "code"),
    [({}, "passed", "0"), ({"sync": {"wrong_sums": [7, 9, 11, 13]}}, "failed", "1")],
)
def test_a_verdict_is_in_the_summary_and_the_outputs(
    harness: Harness, behaviour: dict[str, Any], verdict: str, code: str
) -> None:
    harness.write_config(small_config())
    command = f"{sys.executable} -m eval run config.yaml"
    done = step(harness, "evaluate", COMMAND=command, FAKE_VLLM=json.dumps(behaviour))
    assert done.returncode == 0, done.stderr
    assert outputs(harness) == {"exit-code": code, "verdict": verdict}
    summary = (harness.folder / "summary").read_text()
    assert summary.startswith(f"## EPLB evaluation small: {verdict}")
    assert (harness.folder / "evaluation-small.html").exists()
    assert (harness.folder / "evaluation-small.xml").exists()

    [_, (asked, body)] = comment(harness, [])
    assert asked[:4] == ["api", "--method", "POST", "repos/someone/something/issues/7/comments"]
    assert body.startswith("<!-- eplb-evaluation small -->\n") and summary.strip() in body


def test_a_run_of_another_name_is_no_verdict(harness: Harness) -> None:
    step(harness, "evaluate", COMMAND="true")
    assert outputs(harness) == {"exit-code": "2", "verdict": ""}
    [_, (_, body)] = comment(harness, [])
    assert "left no report" in body


def test_the_comment_of_an_earlier_run_is_changed(harness: Harness) -> None:
    [(asked, _), (changed, _)] = comment(harness, [12, 15])
    assert 'startswith("<!-- eplb-evaluation small -->")' in asked[-1]
    assert changed[:4] == ["api", "--method", "PATCH", "repos/someone/something/issues/comments/12"]


def test_a_token_that_may_not_write_is_told_and_fails_nothing(harness: Harness) -> None:
    assert len(comment(harness, None)) == 1


def test_a_report_too_long_for_a_comment_is_cut_between_characters(harness: Harness) -> None:
    (harness.folder / "evaluation-small.md").write_text("€" * 30000)
    [_, (_, body)] = comment(harness, [])
    assert len(body) < 65536 and body.count("€") == 20000
    assert "cut here" in body and "https://github.example/runs/1" in body


def test_every_step_has_a_shell_and_every_name_is_one_that_there_is() -> None:
    action = yaml.safe_load((ACTION / "action.yml").read_text())
    text = (ACTION / "action.yml").read_text()
    assert set(re.findall(r"inputs\.([\w-]+)", text)) == set(action["inputs"])
    steps = action["runs"]["steps"]
    assert all(("shell" in one) == ("run" in one) for one in steps)
    scripts = [Path(one["run"]).name for one in steps if "action_path" in one.get("run", "")]
    assert scripts == ["evaluate", "comment"]
    for name, one in zip(scripts, steps, strict=False):
        read = set(re.findall(r"\$\{?([A-Z_]{3,})\b", (ACTION / name).read_text()))
        assert {word for word in read if not word.startswith("GITHUB_")} <= set(one["env"])
    workflow = yaml.safe_load((ROOT / ".github/workflows/cpu.yml").read_text())
    used = [one for one in workflow["jobs"]["evaluate"]["steps"] if "./ci" in one.get("uses", "")]
    assert used and set(used[0]["with"]) <= set(action["inputs"])


@pytest.mark.skipif(shutil.which("actionlint") is None, reason="no actionlint on PATH")
def test_workflows_are_what_actionlint_expects() -> None:
    done = subprocess.run(["actionlint"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
