# SPDX-License-Identifier: Apache-2.0
"""What every report shows, computed once."""

import io
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from eval.judging.comparison import Accuracy
from eval.report.arm_counts import rearrangements
from eval.report.console import PlainConsole
from eval.report.files import write_reports
from eval.report.junit import write_junit
from eval.report.runs import read_runs
from eval.report.terminal import accuracy_table, print_report
from eval.report.view import ArmAccuracy, asked_unlike
from eval.report.viewing import view_of_result, view_of_runs
from eval.results.folder import read_result
from eval.results.schema import Result
from tests.builders.harness import small_config
from tests.builders.runs import Shape, write_run

HOSTILE = "<img src=x onerror=alert(1)> </details> [/red] `x` | \x1b[2J\x07 @someone\uffff"


def printed(result: Result, width: int = 400, verbose: bool = False) -> str:
    file = io.StringIO()
    print_report(result, PlainConsole(file=file, width=width), verbose)
    return file.getvalue()


def test_the_verdict_comes_first_and_rules_that_passed_are_only_named(tmp_path: Path) -> None:
    result = read_result(write_run(tmp_path / "run", Shape(verdict="failed")))
    limit_of_failed, limit_of_passed = "no loss at p < 0.01", "at least 5"

    text = printed(result)
    assert text.startswith("run: failed\n- 0 lost")
    assert limit_of_failed in text
    assert limit_of_passed not in text
    assert text.endswith("\n3 passed, shown by --verbose: paired_accuracy, rearrangements (2)\n")

    whole = printed(result, verbose=True)
    assert whole.startswith("run: failed\n")
    assert limit_of_passed in whole
    assert "shown by --verbose" not in whole


def stock(folder: Path, **plugin: Any) -> Result:
    """A run whose arm sync has EPLB of vLLM alone."""
    write_run(folder)
    result = read_result(folder)
    config = small_config(name=folder.name, model="someone/some-moe")
    config["arms"][1]["plugin"] = plugin
    arms = [arm.model_copy(update={"logged_rearrangements": 45}) for arm in result.arms]
    arms[1] = arms[1].model_copy(update={"rearrangements": 0})
    changed = {**result.model_dump(by_alias=True), "config": config}
    changed["arms"] = [arm.model_dump() for arm in arms]
    return Result.model_validate(changed)


def test_of_a_stock_arm_the_log_tells(tmp_path: Path) -> None:
    result = stock(tmp_path / "run", enabled=False)

    off, sync, asynchronous = view_of_result(result).counts
    assert [one.rows["rearrangements"] for one in (off, sync, asynchronous)] == [
        "0", "45 begun (log)", "12"
    ]  # fmt: skip
    assert (sync.rows["weight checks"], asynchronous.rows["weight checks"]) == ("-", "960")
    told = [
        rearrangements(result.config, arm, run)
        for arm, run in zip(result.config.arms, result.arms, strict=True)
    ]
    assert told[:2] == ["0 rearrangements", "45 rearrangements begun, as vLLM's log says"]


def test_what_the_log_tells_of_is_a_fact_of_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    result = stock(folder, enabled=False)
    (folder / "result.json").write_text(result.model_dump_json(by_alias=True))

    facts = view_of_runs(read_runs([folder])).facts

    assert ("rearrangements", "12", "in 1 arm") in facts
    assert ("begun, by vLLM's log", "45", "in 1 arm") in facts


def test_terminal_and_files_tell_the_same_accuracies(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", Shape(questions=70, lost=3))
    (kept,) = view_of_runs(read_runs([folder])).runs
    assert view_of_result(read_result(folder)).accuracies == kept.accuracies


@pytest.mark.parametrize("asked", [70, 40])
def test_accuracies_name_their_questions_where_arms_were_asked_unlike_many(asked: int) -> None:
    every = [
        ArmAccuracy("run", arm, "gsm8k", 5, Accuracy(30, questions), 0.5)
        for arm, questions in (("off", 70), ("sync", asked))
    ]
    file = io.StringIO()
    PlainConsole(file=file, width=200).print(accuracy_table(every))
    assert asked_unlike(every) == (asked != 70)
    assert ("of 70" in file.getvalue(), "of 40" in file.getvalue()) == (asked == 40,) * 2


@pytest.mark.parametrize("width", [80, 400])
def test_hostile_text_is_shown_by_every_report(tmp_path: Path, width: int) -> None:
    rule = {"rule": HOSTILE, "arm": HOSTILE, "task": HOSTILE, "saw": HOSTILE, "limit": HOSTILE}
    control = {"name": HOSTILE, "caught": True, "caught_by": [HOSTILE], "saw": [HOSTILE]}
    folder = write_run(
        tmp_path / "run",
        reasons=[HOSTILE, f"first:\n{HOSTILE}\n```\n</details>"],
        verdict="failed",
        rules=[{**rule, "verdict": "failed", "detectable": HOSTILE}],
        controls=[{**control, "accuracy": None}],
        left_out={HOSTILE: HOSTILE},
        name=HOSTILE,
    )
    write_reports([folder], tmp_path / "report.md", tmp_path / "report.html")
    write_junit(read_result(folder), tmp_path / "junit.xml")
    texts = [printed(read_result(folder), width)]
    texts += [(tmp_path / name).read_text() for name in ("report.md", "report.html", "junit.xml")]

    assert all("\\x1b[2J\\x07" in text for text in texts)
    assert not any(set("\x1b\x07\uffff") & set(text) for text in texts)
    assert "[/red]" in texts[0]
    rendered = MarkdownIt("commonmark").enable("table").render(texts[1])
    assert "<img" not in rendered + texts[2]
    assert rendered.count("<details>") == rendered.count("</details>") == 2


def test_reports_import_nothing_heavy() -> None:
    heavy = {"lm_eval", "torch", "transformers", "datasets", "matplotlib", "scipy.stats"}
    found = subprocess.run(
        [sys.executable, "-c", "import eval.report.terminal, eval.report.files, "
         f"eval.report.junit, sys; print(*({heavy} & sys.modules.keys()))"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert found.stdout.split() == []


def test_what_policies_moved_is_told_in_every_form(tmp_path: Path) -> None:
    arms = ("off", "sync", "async", "sync-incremental")
    folder = write_run(tmp_path / "run", Shape(arms=arms))
    result = read_result(folder)
    write_reports([folder], tmp_path / "report.md", tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()

    rows = view_of_result(result).policies
    assert [(row.arm, row.cells["policy"]) for row in rows] == [
        ("sync", "vllm"), ("async", "vllm"), ("sync-incremental", "incremental")
    ]  # fmt: skip
    for text in (printed(result), (tmp_path / "report.md").read_text(), page):
        assert "incremental" in text
        assert all(row.cells["bytes received"] in text for row in rows)
        assert all(row.cells["layers changed"] in text for row in rows)
    assert page.count("Bytes received over time") == 3
    # One scale: the arm that moves little has short lines.
    first, _, last = (float(y) for y in re.findall(r'class="stem" d="M[\d.]+ 100V([\d.]+)', page))
    assert first < 50 < last


def test_a_run_from_before_moves_were_told_is_reported(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", Shape(tells_moves=False))
    write_reports([folder], tmp_path / "report.md", tmp_path / "report.html")

    assert list(view_of_result(read_result(folder)).policies) == []
    page = (tmp_path / "report.html").read_text()
    assert page.count("What ranks received is not shown") == 2
    assert "What policies moved" not in page
    assert "experts received" not in (tmp_path / "report.md").read_text()


def test_what_limits_a_verdict_is_told_in_every_form(tmp_path: Path) -> None:
    note = "nothing ties the files of this run together"
    folder = write_run(tmp_path / "run", notes=[note])
    result = read_result(folder)
    write_reports([folder], tmp_path / "report.md", tmp_path / "report.html")
    write_junit(result, tmp_path / "junit.xml")

    written = [tmp_path / name for name in ("report.md", "report.html", "junit.xml")]
    assert [note in file.read_text() for file in written] == [True] * 3
    assert note in printed(result)
