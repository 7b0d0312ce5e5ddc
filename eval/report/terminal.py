# SPDX-License-Identifier: Apache-2.0
"""A result as people read it: the verdict, accuracies, counts, what did not pass, controls."""

from collections import Counter
from collections.abc import Iterator, Sequence

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from eval.report import wording
from eval.report.console import shown
from eval.report.latency import LatencyView, latency_view
from eval.report.load import load_rows
from eval.report.throughput import TrafficTable, throughput_conclusions, throughput_tables
from eval.report.view import ArmAccuracy, ArmCounts, PolicyRow, RunView, asked_unlike
from eval.report.viewing import view_of_result
from eval.results.schema import ArmResult, ControlResult, Result, RuleResult

_COLUMNS_OF_RULES = 150
"""A terminal with fewer gets a list instead of the table of rules."""

_COLOURS = {"passed": "green", "failed": "red"}


def print_report(result: Result, console: Console, verbose: bool = False) -> None:
    """Print everything but the answers themselves, what decides first.

    Args:
        result: Of a run, or of judging one again.
        console: One that takes strings as they are (`eval.report.console`).
        verbose: Rules that passed are told in full, too.
    """
    run = view_of_result(result)
    console.print(summary(run), soft_wrap=True)
    if result.kind != "accuracy":
        print_figures(result, console)
    for table in _tables(run, console.width, verbose):
        console.print(table)
    passed = [rule.rule for rule in run.rules if rule.verdict == "passed"]
    if passed and not verbose:
        console.print(shown(passed_rules(passed)), highlight=False)


def print_figures(result: Result, console: Console) -> None:
    """Print what a latency, a stress or a throughput run measured."""
    for traffic in throughput_tables(result):
        console.print(traffic_table(traffic))
    for line in throughput_conclusions(result):
        console.print(line, soft_wrap=True, highlight=False)
    print_latency(latency_view(result), console)
    for arm in result.arms:
        if arm.load is not None:
            console.print(load_table(arm))


def print_latency(view: LatencyView, console: Console) -> None:
    """Print times, if there are any, and what they say."""
    if view.columns:
        console.print(latency_table(view))
    for line in view.conclusions():
        console.print(line, soft_wrap=True, highlight=False)


def _tables(run: RunView, width: int, verbose: bool) -> Iterator[RenderableType]:
    if run.accuracies:
        yield accuracy_table(run.accuracies)
    if run.counts:
        yield counts_table(run.counts)
    if run.policies:
        yield policies_table(run.policies)
    rules = [rule for rule in run.rules if verbose or rule.verdict != "passed"]
    if rules:
        wide = width >= _COLUMNS_OF_RULES
        yield rules_table(rules) if wide else rules_list(rules)
    if run.controls:
        yield controls_table(run.controls)


def accuracy_table(accuracies: Sequence[ArmAccuracy]) -> Table:
    """One row for each scored task and arm, with how many were asked where arms differ in it."""
    unlike = asked_unlike(accuracies)
    table = Table("task", "arm")
    for heading in ("n-shot", "accuracy (strict match)", "95 % interval", "flexible extract"):
        table.add_column(heading, justify="right")
    for one in accuracies:
        share = one.share
        interval = f"{share.interval.low:.3f} to {share.interval.high:.3f}"
        accuracy = f"{share.value:.3f}" + (f" of {share.questions}" if unlike else "")
        figures = (accuracy, interval, f"{one.flexible:.3f}")
        table.add_row(one.task, one.arm, str(one.fewshot), *figures)
    return table


def counts_table(arms: Sequence[ArmCounts]) -> Table:
    """What shows that the arms did what they are there for: one column an arm."""
    table = Table("")
    for arm in arms:
        table.add_column(arm.arm, justify="right")
    for heading in dict.fromkeys(heading for arm in arms for heading in arm.rows):
        table.add_row(heading, *(arm.rows.get(heading, "not asked") for arm in arms))
    return table


def policies_table(rows: Sequence[PolicyRow]) -> Table:
    """What each arm's policy moved: one column an arm, or an arm's model."""
    table = Table("")
    for row in rows:
        table.add_column("\n".join(filter(None, [row.arm, row.model])), justify="right")
    for heading in rows[0].cells:
        table.add_row(heading, *(row.cells[heading] for row in rows))
    return table


def latency_table(view: LatencyView) -> Table:
    """One column an arm."""
    table = Table("ms")
    for column in view.columns:
        table.add_column(column.name, justify="right")
    for heading, cells in view.rows():
        table.add_row(heading, *cells)
    return table


def traffic_table(traffic: TrafficTable) -> Table:
    """One column an arm."""
    table = Table(traffic.name)
    for column in traffic.columns:
        table.add_column(column.name, justify="right")
    for heading, cells in traffic.rows():
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
        about = (rule.rule, rule.arm or "", rule.task or "")
        table.add_row(_verdict(rule.verdict), *about, rule.saw, rule.limit, rule.detectable)
    return table


def passed_rules(names: Sequence[str]) -> str:
    """How often each rule passed, in the order of the rules."""
    counts = Counter(names)
    times = (name if count == 1 else f"{name} ({count})" for name, count in counts.items())
    return f"{len(names)} passed, shown by --verbose: {', '.join(times)}"


def controls_table(controls: Sequence[ControlResult]) -> Table:
    """Every fault that was put in on purpose: what noticed it."""
    table = Table("control", "caught by", "accuracy", "saw")
    for control in controls:
        caught = shown(", ".join(control.caught_by), "green") if control.caught else None
        accuracy = "-" if control.accuracy is None else f"{control.accuracy:.3f}"
        table.add_row(control.name, caught or Text("-", "red"), accuracy, "\n".join(control.saw))
    return table


def rules_list(rules: Sequence[RuleResult]) -> Text:
    """The same as the table, as a paragraph for each rule."""
    lines = Text()
    for rule in rules:
        about = ", ".join(part for part in (rule.arm, rule.task) if part) or "whole run"
        lines.append(_verdict(rule.verdict)).append(shown(f" {rule.rule}", "bold"))
        limits = f"Limit: {rule.limit}. Could have detected: {rule.detectable}."
        lines.append(shown(f" [{about}] {rule.saw}. {limits}\n"))
    return lines


def summary(run: RunView) -> Text:
    """The verdict, the reasons, where it was had, what limits it, and what no arm was asked."""
    colour = _COLOURS.get(run.verdict, "yellow")
    lines = shown(f"{run.name}: {run.verdict}", f"bold {colour}")
    notes = [f"- {reason}" for reason in run.reasons]
    notes += [run.served, *wording.notes(run)]
    return Text("\n").join([lines, *map(shown, notes)])


def _verdict(verdict: str) -> Text:
    return Text(verdict, _COLOURS.get(verdict, "yellow"))
