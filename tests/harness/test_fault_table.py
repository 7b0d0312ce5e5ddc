# SPDX-License-Identifier: Apache-2.0
"""`python -m eval faults`: which faults strike in which arms, the table and the exit code."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from eval.cli import app
from eval.commands import fault_table
from eval.config.faults import PROMISES
from eval.results.folder import read_result
from tests.builders.runs import write_run


class Stress:
    """Stands for stress runs: notes what is ordered, and gives each its verdict."""

    def __init__(self, folder: Path) -> None:
        self.kept = write_run(folder / "kept")
        self.verdicts: dict[str, str] = {}
        """By fault; others pass."""
        self.ordered: list[tuple[str, str]] = []

    def __call__(self, config: Any, mode: str, workload: Any, *_: Any) -> tuple[Any, Path]:
        assert config.name == f"{mode}-{workload.fault}"
        self.ordered.append((mode, workload.fault))
        verdict = self.verdicts.get(workload.fault, "passed")
        return read_result(self.kept).model_copy(update={"verdict": verdict}), self.kept


@pytest.fixture
def stress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stress:
    monkeypatch.chdir(tmp_path)
    stand_in = Stress(tmp_path)
    monkeypatch.setattr(fault_table, "stress", stand_in)
    return stand_in


def faults(*options: str) -> Result:
    return CliRunner().invoke(app, ["faults", "cpu", *options])


def test_faults_strike_one_after_another_and_are_tabulated(stress: Stress) -> None:
    done = faults("--json", "faults.json")
    assert done.exit_code == 0, done.output
    asynchronous = [fault for mode, fault in stress.ordered if mode == "async"]
    synchronous = [fault for mode, fault in stress.ordered if mode == "sync"]
    assert asynchronous == [*PROMISES]
    assert synchronous == [name for name, one in PROMISES.items() if not one.needs_worker]
    kept = json.loads(Path("faults.json").read_text())["faults"]
    assert [row["mode"] for row in kept] == [mode for mode, _ in stress.ordered]
    assert len([line for line in done.output.splitlines() if line.startswith("| ")]) == (
        2 + len(stress.ordered)
    )


@pytest.mark.parametrize(
    ("options", "ordered"),
    [
        (
            ("--only", "rank_killed"),
            [("sync", "rank_killed"), ("async", "rank_killed")],
        ),
        (("--only", "rank_killed", "--mode", "async"), [("async", "rank_killed")]),
        (("--quick",), [("async", "transfer_fails"), ("sync", "policy_hangs")]),
    ],
)
def test_some_are_chosen(
    options: tuple[str, ...], ordered: list[tuple[str, str]], stress: Stress
) -> None:
    assert faults(*options).exit_code == 0
    assert stress.ordered == ordered


@pytest.mark.parametrize(
    ("verdict", "code"), [("failed", 1), ("could not run", 2), ("not tested", 2)]
)
def test_one_that_is_not_as_promised_is_the_exit_code(
    verdict: str, code: int, stress: Stress
) -> None:
    stress.verdicts["rank_killed"] = verdict
    assert faults("--only", "rank_killed", "--only", "transfer_fails").exit_code == code


def test_a_fault_that_there_is_not_is_refused_before_anything_starts(stress: Stress) -> None:
    done = faults("--only", "disk")
    assert f"disk: faults are {', '.join(PROMISES)}" in str(done.exception)
    assert stress.ordered == []
