# SPDX-License-Identifier: Apache-2.0
"""Runs as Markdown, short enough for a pull request."""

import re
from collections.abc import Iterable, Iterator, Sequence

from eval.report import origin, wording
from eval.report.pairing import PairedAnswers, accuracy, all_pairs
from eval.report.runs import Run
from eval.results.schema import ControlResult, RuleResult


def render_markdown(runs: Sequence[Run]) -> str:
    """Verdict, accuracies, paired answers, rules, controls, environment, command."""
    names = ", ".join(run.label for run in runs)
    blocks = [
        f"## EPLB evaluation {names}: {wording.overall(runs)}",
        f"{wording.meaning(runs)} {wording.subject(runs)}",
        "\n".join(_reason(reason) for reason in wording.reasons(runs)),
        "\n".join(f"- {_plain(note)}" for note in wording.left_out(runs)),
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
        return f"- {_plain(first)}"
    fence = "`" * (1 + max(map(len, re.findall("`+", following)), default=2))
    block = "\n".join(f"  {line}" for line in [f"{fence}text", *following.split("\n"), fence])
    return f"- {_plain(first)}\n\n{block}"


def _plain(text: str) -> str:
    """Without what Markdown takes for marks, such as those of ``__init__`` and ``<module>``."""
    return re.sub(r"[\\`*<|]|__", lambda marks: "".join(f"\\{one}" for one in marks[0]), text)


def _accuracies(runs: Sequence[Run]) -> str:
    rows = [
        [run.label, arm.result.name, task.name, f"**{wording.percent(found.value)}**",
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

    def table(chosen: Iterable[RuleResult]) -> str:
        rows = [
            [one.verdict, one.rule, one.arm or "", one.task or "", one.saw, one.limit,
             one.detectable]
            for one in chosen
        ]  # fmt: skip
        return _table(headings, rows)

    passed = [rule for rule in rules if rule.verdict == "passed"]
    yield table(rule for rule in rules if rule.verdict != "passed")
    if passed:
        yield _folded(f"{heading}{len(passed)} of {len(rules)} rules passed", table(passed))


def _controls(heading: str, controls: Sequence[ControlResult]) -> Iterator[str]:
    rows = [
        [one.name, "caught" if one.caught else "**not caught**", ", ".join(one.caught_by),
         "" if one.accuracy is None else wording.percent(one.accuracy)]
        for one in controls
    ]  # fmt: skip
    yield _table([f"{heading}control", "", "by the rules", "accuracy"], rows)


def _environment(runs: Sequence[Run]) -> str:
    rows = [[name, *values] for name, values in origin.environment(runs)]
    return _folded("environment", _table(["", *(run.label for run in runs)], rows))


def _repeat(runs: Sequence[Run]) -> str:
    commands = [origin.repeat_command(run.result) for run in runs]
    lines = "\n".join(dict.fromkeys(command for command, _ in commands))
    blocks = [f"```bash\n{lines}\n```"]
    saved = {run.result.name: text for run, (_, text) in zip(runs, commands, strict=True) if text}
    blocks += [_folded(f"{name}.yaml", f"```yaml\n{text}```") for name, text in saved.items()]
    return "\n\n".join(blocks)


def _relative(rule: RuleResult, run: Run) -> RuleResult:
    return rule.model_copy(update={"saw": origin.relative(rule.saw, run.result)})


def _folded(title: str, text: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{text}\n\n</details>"


def _table_of_runs(
    runs: Sequence[Run], headings: Sequence[str], rows: Sequence[Sequence[object]]
) -> str:
    """The first column, which names the run, is left out when there is only one."""
    first = 0 if len(runs) > 1 else 1
    return _table(headings[first:], [row[first:] for row in rows])


def _table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Empty without rows."""
    if not rows:
        return ""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(_line(str(cell)) for cell in row)} |" for row in lines)


def _line(text: str) -> str:
    """One line, in which nothing ends a table's cell."""
    return text.replace("|", "\\|").replace("\n", "<br>")
