# SPDX-License-Identifier: Apache-2.0
"""Runs as Markdown, short enough for a pull request."""

import textwrap
from collections.abc import Iterable, Iterator, Sequence

from eval.report import wording
from eval.report.markdown_text import Markdown, block, fenced, folded, inline
from eval.report.view import ArmPairs, KeptRunView, ReportView, asked_unlike
from eval.results.schema import ControlResult, RuleResult


def render_markdown(report: ReportView) -> str:
    """Verdict, accuracies, paired answers, rules, controls, environment, command."""
    runs = report.runs
    names = ", ".join(run.label for run in runs)
    blocks = [
        f"## EPLB evaluation {inline(names)}: {report.verdict}",
        block(" ".join([report.meaning, report.subject, *report.served])),
        "\n".join(_reason(reason) for reason in report.reasons),
        "\n".join(f"- {block(note)}" for note in report.notes),
        "\n\n".join(block(one) for one in report.speeds),
        _accuracies(report),
        _pairs(report),
        _policies(report),
    ]
    for run in runs:
        heading = f"{run.label}: " if len(runs) > 1 else ""
        blocks += _rules(heading, run.rules)
        blocks += _controls(heading, run.controls)
    blocks += [_environment(report), _repeat(runs)]
    return "\n\n".join(filter(None, blocks)) + "\n"


def _reason(reason: str) -> str:
    """An item of a list; what follows its first line is shown as it is."""
    first, following = wording.parts(reason)
    if not following:
        return f"- {block(first)}"
    return f"- {block(first)}\n\n{textwrap.indent(fenced(following, 'text'), '  ')}"


def _accuracies(report: ReportView) -> str:
    unlike = asked_unlike(report.accuracies)
    rows = [
        [one.run, one.arm, one.task, Markdown(f"**{wording.percent(one.share.value)}**"
         + (f" of {one.share.questions}" if unlike else "")),
         " to ".join(map(wording.percent, one.share.interval))]
        for one in report.accuracies
    ]  # fmt: skip
    return _table_of_runs(report, ["run", "arm", "task", "accuracy", "95 % interval"], rows)


def _pairs(report: ReportView) -> str:
    rows = [
        [one.run, one.arm, one.answers.task, *_right_and_wrong(one),
         f"{one.answers.identical} of {one.answers.pairs.questions}"]
        for one in report.pairs
    ]  # fmt: skip
    headings = ["run", "arm", "task", "both right", "lost", "won", "both wrong", "McNemar p"]
    return _table_of_runs(report, [*headings, "loss not excluded", "same text as off"], rows)


def _policies(report: ReportView) -> str:
    rows = report.policies
    headings = ["run", "arm", *(rows[0].cells if rows else ())]
    cells = [[row.run, ", ".join(filter(None, [row.arm, row.model])), *row.cells.values()]
             for row in rows]  # fmt: skip
    return _table_of_runs(report, headings, cells)


def _right_and_wrong(one: ArmPairs) -> list[object]:
    if not one.scored:
        return ["-"] * 6
    answers = one.answers
    p_value, loss = wording.p_value(answers.p_value), f"{answers.largest_loss:.1f} points"
    return [*answers.pairs, p_value, loss]


def _rules(heading: str, rules: Sequence[RuleResult]) -> Iterator[str]:
    headings = ["verdict", "rule", "arm", "task", "saw", "limit", "could have detected"]

    def table(chosen: Iterable[RuleResult]) -> Markdown:
        rows = [
            [one.verdict, one.rule, one.arm or "", one.task or "", one.saw, one.limit,
             one.detectable]
            for one in chosen
        ]  # fmt: skip
        return _table(headings, rows)

    passed = [rule for rule in rules if rule.verdict == "passed"]
    yield table(rule for rule in rules if rule.verdict != "passed")
    if passed:
        yield folded(f"{heading}{len(passed)} of {len(rules)} rules passed", table(passed))


def _controls(heading: str, controls: Sequence[ControlResult]) -> Iterator[str]:
    rows = [
        [one.name, "caught" if one.caught else Markdown("**not caught**"), ", ".join(one.caught_by),
         "" if one.accuracy is None else wording.percent(one.accuracy)]
        for one in controls
    ]  # fmt: skip
    yield _table([f"{heading}control", "", "by the rules", "accuracy"], rows)


def _environment(report: ReportView) -> str:
    rows = [[name, *values] for name, values in report.environment]
    return folded("environment", _table(["", *(run.label for run in report.runs)], rows))


def _repeat(runs: Sequence[KeptRunView]) -> str:
    lines = "\n".join(dict.fromkeys(run.repeat.command for run in runs))
    saved = {run.name: run.repeat.saved for run in runs if run.repeat.saved}
    blocks = [folded(f"{name}.yaml", fenced(text, "yaml")) for name, text in saved.items()]
    return "\n\n".join([fenced(lines, "bash"), *blocks])


def _table_of_runs(
    report: ReportView, headings: Sequence[str], rows: Sequence[Sequence[object]]
) -> Markdown:
    """The first column, which names the run, is left out when there is only one."""
    first = 0 if len(report.runs) > 1 else 1
    return _table(headings[first:], [row[first:] for row in rows])


def _table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> Markdown:
    """Empty without rows; what is no Markdown is shown as it is."""
    if not rows:
        return Markdown("")
    lines = [headings, [Markdown("---")] * len(headings), *rows]
    return Markdown("\n".join(f"| {' | '.join(map(_cell, row))} |" for row in lines))


def _cell(value: object) -> Markdown:
    return value if isinstance(value, Markdown) else inline(str(value))
