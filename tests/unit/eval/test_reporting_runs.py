# SPDX-License-Identifier: Apache-2.0
"""Which folders make a report, and what is said of those that do not."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from eval import cli
from eval.errors import EvaluationError
from eval.report.files import write_reports
from eval.report.runs import read_runs
from tests.builders.runs import Shape, write_run


def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    file = folder / "result.json"
    result = json.loads(file.read_text())
    change(result)
    file.write_text(json.dumps(result))


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Two of the same configuration."""
    return [write_run(tmp_path / name) for name in ("one", "two")]


def other_model(folder: Path) -> None:
    edit(folder, lambda result: result["config"].update(model="someone/else"))


def other_task(folder: Path) -> None:
    edit(folder, lambda result: result["config"]["tasks"][0].update(name="gsm_tiny"))


def other_questions(folder: Path) -> None:
    edit(folder, lambda result: result["task_hashes"].update(gsm8k="fedcba"))


def arm_not_in_the_result(folder: Path) -> None:
    edit(folder, lambda result: result["arms"].pop())


def arm_without_folder(folder: Path) -> None:
    shutil.rmtree(folder / "arms" / "sync")


def result_cut_off(folder: Path) -> None:
    file = folder / "result.json"
    file.write_bytes(file.read_bytes()[:-100])


def answers_cut_off_in_a_line(folder: Path) -> None:
    file = folder / "arms" / "async" / "samples.jsonl"
    file.write_bytes(file.read_bytes()[:-100])


def answers_cut_off_between_lines(folder: Path) -> None:
    file = folder / "arms" / "async" / "samples.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-3]))


def events_cut_in_two(folder: Path) -> None:
    file = folder / "arms" / "async" / "events" / "rank0.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join([*lines[:5], lines[5][:30] + "\n", *lines[6:]]))


def events_of_another_schema(folder: Path) -> None:
    file = folder / "arms" / "sync" / "events" / "rank0.jsonl"
    file.write_text(file.read_text().replace('"schema": 2', '"schema": 7'))


def no_result(folder: Path) -> None:
    (folder / "result.json").unlink()


BAD_INPUT = {
    other_model: "two and .*/one cannot stand in one report.* someone/else and someone/some-moe",
    other_task: "two and .*/one cannot stand in one report.*gsm_tiny.*gsm8k",
    other_questions: "two and .*/one cannot stand in one report.* gsm8k.* fedcba and 0123",
    arm_not_in_the_result: "two/result.json: arm async is missing",
    arm_without_folder: "arm sync is missing: there is no folder .*two/arms/sync",
    result_cut_off: "two/result.json",
    answers_cut_off_in_a_line: "async/samples.jsonl, line 40",
    answers_cut_off_between_lines: "async/samples.jsonl has 37 answers, but 40 were given",
    events_cut_in_two: "async/events/rank0.jsonl, line 6: not JSON",
    events_of_another_schema: "sync/events/rank0.jsonl, line 1: events of schema 7",
    no_result: "cannot read .*two/result.json",
}


@pytest.mark.parametrize("damage", BAD_INPUT, ids=lambda damage: damage.__name__)
def test_what_cannot_be_reported_is_named_and_writes_nothing(
    runs: list[Path], tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    damage(runs[1])

    with pytest.raises(EvaluationError, match=BAD_INPUT[damage]):
        write_reports(runs, tmp_path / "report.md", tmp_path / "report.html")

    assert not list(tmp_path.glob("report.*"))


def test_bad_input_is_exit_code_2(
    runs: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    no_result(runs[0])
    monkeypatch.setattr("sys.argv", ["eval", "report", str(runs[0]), "--html", "report.html"])

    with pytest.raises(SystemExit) as ended:
        cli.main()

    assert ended.value.code == 2
    assert "error: cannot read" in capsys.readouterr().err


def test_each_form_is_written_to_its_file(runs: list[Path], tmp_path: Path) -> None:
    files = tmp_path / "new" / "report.md", tmp_path / "new" / "report.html"
    options = ["--markdown", str(files[0]), "--html", str(files[1])]

    result = CliRunner().invoke(cli.app, ["report", *map(str, runs), *options])

    assert result.exit_code == 0, result.output
    assert files[0].read_text().startswith("## EPLB evaluation one, two: passed")
    assert files[1].read_text().startswith("<!doctype html>")


def test_without_a_file_the_report_goes_to_the_terminal(runs: list[Path]) -> None:
    result = CliRunner().invoke(cli.app, ["report", str(runs[0])])

    assert result.exit_code == 0
    assert "one: passed" in result.output


def test_a_run_that_was_stopped_is_reported_and_says_which_arms_are_missing(
    tmp_path: Path,
) -> None:
    folder = write_run(tmp_path / "one", Shape(verdict="interrupted"))
    arm_not_in_the_result(folder)

    (run,) = read_runs([folder])

    assert [arm.result.name for arm in run.arms] == ["off", "sync"]
    assert run.missing == ["async"]


def test_the_arm_of_a_control_is_not_one_of_the_run(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "one")

    def add_control(result: dict[str, Any]) -> None:
        result["config"]["arms"].append({"name": "control-no_rearrangement"})
        result["arms"].append({**result["arms"][1], "name": "control-no_rearrangement"})

    edit(folder, add_control)

    (run,) = read_runs([folder])

    assert [arm.result.name for arm in run.arms] == ["off", "sync", "async"]


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / place / "run") for place in ("here", "there")]

    assert [run.label for run in read_runs(folders)] == ["run (1)", "run (2)"]
