# SPDX-License-Identifier: Apache-2.0
"""Runs as Markdown, short enough for a pull request."""

import textwrap
from collections.abc import Iterable, Iterator, Sequence

from eval.report import origin, wording
from eval.report.markdown_text import Markdown, block, fenced, folded, inline
from eval.report.pairing import PairedAnswers, accuracy, all_pairs
from eval.report.runs import Run
from eval.results.schema import ControlResult, RuleResult


def render_markdown(runs: Sequence[Run]) -> str:
    """Verdict, accuracies, paired answers, rules, controls, environment, command."""
    names = ", ".join(run.label for run in runs)
    blocks = [
        f"## EPLB evaluation {inline(names)}: {wording.overall(runs)}",
        inline(f"{wording.meaning(runs)} {wording.subject(runs)}"),
        "\n".join(_reason(reason) for reason in wording.reasons(runs)),
        "\n".join(f"- {block(note)}" for note in wording.left_out(runs)),
        _accuracies(runs),
        _pairs(runs),
    ]
    for run in runs:
        heading = f"{run.label}: " if len(runs) > 1 else ""
        blocks += _rules(heading, [_relative(rule, run) for rule in run.result.rules])
        blocks += _controls(heading, run.result.controls)
    blocks += [_environment(runs), _repeat(runs)]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _reason(reason: str) -> str:
    """An item of a list; what follows its first line is shown as it is."""
    first, following = wording.parts(reason)
    if not following:
        return f"- {block(first)}"
    return f"- {block(first)}\n\n{textwrap.indent(fenced(following, 'text'), '  ')}"


def _accuracies(runs: Sequence[Run]) -> str:
    rows = [
        [run.label, arm.result.name, task.name, Markdown(f"**{wording.percent(found.value)}**"),
         f"{wording.percent(found.low)} to {wording.percent(found.high)}"]
        for run in runs
        for arm in run.arms
        for task in arm.result.tasks
        if task.scored
        for found in [accuracy(arm.samples, task.name)]
    ]  # fmt: skip
    headings = ["run", "arm", "task", "accuracy", "95 % interval"]
    return _table_of_runs(runs, headings, rows)


def _pairs(runs: Sequence[Run]) -> str:
    rows = [
        [one.run, one.arm, one.task, *_right_and_wrong(one),
         f"{one.identical} of {one.pairs.questions}"]
        for run in runs
        for one in all_pairs(run)
    ]  # fmt: skip
    headings = ["run", "arm", "task", "both right", "lost", "won", "both wrong", "McNemar p"]
    return _table_of_runs(runs, [*headings, "loss not excluded", "same text as off"], rows)


def _right_and_wrong(one: PairedAnswers) -> list[object]:
    if not one.scored:
        return ["-"] * 6
    return [*one.pairs, wording.p_value(one.p_value), f"{one.largest_loss:.1f} points"]


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


def _environment(runs: Sequence[Run]) -> str:
    rows = [[name, *values] for name, values in origin.environment(runs)]
    return folded("environment", _table(["", *(run.label for run in runs)], rows))


def _repeat(runs: Sequence[Run]) -> str:
    commands = [origin.repeat_command(run.result) for run in runs]
    lines = "\n".join(dict.fromkeys(command for command, _ in commands))
    blocks = [fenced(lines, "bash")]
    saved = {run.result.name: text for run, (_, text) in zip(runs, commands, strict=True) if text}
    blocks += [folded(f"{name}.yaml", fenced(text, "yaml")) for name, text in saved.items()]
    return "\n\n".join(blocks)


def _relative(rule: RuleResult, run: Run) -> RuleResult:
    return rule.model_copy(update={"saw": origin.relative(rule.saw, run.result)})


def _table_of_runs(
    runs: Sequence[Run], headings: Sequence[str], rows: Sequence[Sequence[object]]
) -> Markdown:
    """The first column, which names the run, is left out when there is only one."""
    first = 0 if len(runs) > 1 else 1
    return _table(headings[first:], [row[first:] for row in rows])


def _table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> Markdown:
    """Empty without rows; what is no Markdown is shown as it is."""
    if not rows:
        return Markdown("")
    lines = [headings, [Markdown("---")] * len(headings), *rows]
    return Markdown("\n".join(f"| {' | '.join(map(_cell, row))} |" for row in lines))


def _cell(value: object) -> Markdown:
    return value if isinstance(value, Markdown) else inline(str(value))
