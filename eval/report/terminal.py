# SPDX-License-Identifier: Apache-2.0
"""A result as people read it: lm-eval's table, the counts, the rules, the verdict."""

from collections.abc import Sequence
from typing import Any

from lm_eval.utils import make_table
from rich.console import Console
from rich.table import Table
from rich.text import Text

from eval.config.schema import CONTROL_PREFIX
from eval.report.latency import LatencyView, latency_view
from eval.report.load import load_rows
from eval.results.schema import ArmResult, ControlResult, Result, RuleResult, TaskResult

_COLUMNS_OF_RULES = 150
"""A terminal with fewer gets a list instead of the table of rules."""

_COLOURS = {"passed": "green", "failed": "red"}


def print_report(result: Result, console: Console) -> None:
    """Print everything but the answers themselves."""
    if result.kind != "accuracy":
        print_figures(result, console)
        print_verdict(result, console)
        return
    # Controls have a table of their own.
    arms = [arm for arm in result.arms if not arm.name.startswith(CONTROL_PREFIX)]
    if any(task.scored for arm in arms for task in arm.tasks):
        # No wrapping: a table of fixed columns is worth a long line.
        console.print(
            Text(accuracy_table(result.model_copy(update={"arms": arms}))), soft_wrap=True
        )
    if arms:
        console.print(counts_table(arms, list(result.left_out)))
    print_verdict(result, console)


def print_figures(result: Result, console: Console) -> None:
    """Print what a latency or a stress run measured."""
    view = latency_view(result)
    if view.columns:
        console.print(latency_table(view))
    for line in view.conclusions():
        console.print(line, soft_wrap=True, highlight=False)
    for arm in result.arms:
        if arm.load is not None:
            console.print(load_table(arm))


def print_verdict(result: Result, console: Console) -> None:
    """Print rules, controls and what follows from them."""
    if result.rules:
        console.print(
            rules_table(result.rules)
            if console.width >= _COLUMNS_OF_RULES
            else rules_list(result.rules)
        )
    if result.controls:
        console.print(controls_table(result.controls))
    console.print(summary(result), soft_wrap=True)


def accuracy_table(result: Result) -> str:
    """The table of lm-eval, with one line group for each scored task and arm."""
    shots = {task.name: task.fewshot for task in result.config.tasks}
    rows = {
        f"{task.name} ({arm.name})": task
        for arm in result.arms
        for task in arm.tasks
        if task.scored
    }
    table: dict[str, Any] = {
        "results": {name: _metrics(name, task) for name, task in rows.items()},
        "versions": {name: task.task_version for name, task in rows.items()},
        "n-shot": {name: shots[task.name] for name, task in rows.items()},
        "higher_is_better": {name: {"exact_match": True} for name in rows},
    }
    text: str = make_table(table)
    return text


def counts_table(arms: Sequence[ArmResult], left_out: Sequence[str] = ()) -> Table:
    """What shows that the arms did what they are there for: one column an arm."""
    columns = [_counts(arm, left_out) for arm in arms]
    table = Table("")
    for arm in arms:
        table.add_column(arm.name, justify="right")
    for heading in columns[0]:
        table.add_row(heading, *(column[heading] for column in columns))
    return table


def latency_table(view: LatencyView) -> Table:
    """One column an arm."""
    table = Table("ms")
    for column in view.columns:
        table.add_column(column.name, justify="right")
    for heading, cells in view.rows():
        table.add_row(heading, *cells)
    return table


def load_table(arm: ArmResult) -> Table:
    """What an arm was asked under load, and what became of it."""
    table = Table("", arm.name)
    for heading, cell in load_rows(arm):
        table.add_row(heading, Text(cell))
    return table


def rules_table(rules: Sequence[RuleResult]) -> Table:
    """Every rule: what it saw, what it allows, what it could have detected."""
    table = Table("verdict", "rule", "arm", "task", "saw", "limit", "could have detected")
    for rule in rules:
        table.add_row(
            Text(rule.verdict, _COLOURS.get(rule.verdict, "yellow")),
            rule.rule,
            rule.arm or "",
            rule.task or "",
            rule.saw,
            rule.limit,
            rule.detectable,
        )
    return table


def controls_table(controls: Sequence[ControlResult]) -> Table:
    """Every fault that was put in on purpose: what noticed it."""
    table = Table("control", "caught by", "accuracy", "saw")
    for control in controls:
        table.add_row(
            control.name,
            Text(", ".join(control.caught_by), "green") if control.caught else Text("-", "red"),
            _ratio(control.accuracy),
            "\n".join(control.saw),
        )
    return table


def rules_list(rules: Sequence[RuleResult]) -> Text:
    """The same, as a paragraph for each rule."""
    lines = Text()
    for rule in rules:
        about = ", ".join(part for part in (rule.arm, rule.task) if part) or "whole run"
        lines.append(rule.verdict, _COLOURS.get(rule.verdict, "yellow"))
        lines.append(f" {rule.rule}", "bold")
        lines.append(
            f" [{about}] {rule.saw}. Limit: {rule.limit}. Could have detected: {rule.detectable}.\n"
        )
    return lines


def summary(result: Result) -> Text:
    """The verdict, the reasons, and what no arm was asked."""
    lines = Text()
    lines.append(
        f"{result.name}: {result.verdict}", f"bold {_COLOURS.get(result.verdict, 'yellow')}"
    )
    for reason in result.reasons:
        lines.append(f"\n- {reason}")
    for task, why in result.left_out.items():
        lines.append(f"\n{task}: left out, it is not scored. {why}")
    return lines


def _metrics(alias: str, task: TaskResult) -> dict[str, Any]:
    return {
        "alias": alias,
        "exact_match,flexible-extract": task.accuracy_flexible,
        "exact_match_stderr,flexible-extract": _or_not_available(task.accuracy_flexible_stderr),
        "exact_match,strict-match": task.accuracy,
        "exact_match_stderr,strict-match": _or_not_available(task.accuracy_stderr),
    }


def _or_not_available(value: float | None) -> float | str:
    return "N/A" if value is None else value


def _counts(arm: ArmResult, left_out: Sequence[str]) -> dict[str, str]:
    identical = {
        f"identical, {task.name}": f"{task.identical_to_off} of {task.questions}"
        for task in arm.tasks
    } | {f"identical, {task}": "left out" for task in left_out}
    return {
        **identical,
        "rearrangements": str(arm.rearrangements),
        "other outcomes": arm.other_outcomes() or "0",
        "layers committed": str(arm.layers_committed),
        "slots changed": " ".join(str(slots) for slots in arm.slots_changed) or "-",
        "weight checks": str(arm.weight_checks),
        "weight mismatches": str(arm.weight_mismatches),
        "map checks": str(arm.map_checks),
        "map mismatches": str(arm.map_mismatches),
        "balancedness before": _ratio(arm.balancedness_before),
        "balancedness expected": _ratio(arm.balancedness_expected),
        "tokens per second": f"{arm.tokens_per_second:.0f}",
        "seconds to start": f"{arm.start_seconds:.1f}",
        "seconds to answer": f"{arm.seconds:.1f}",
    }


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
