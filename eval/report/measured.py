# SPDX-License-Identifier: Apache-2.0
"""A run that measured, as Markdown and as one HTML page (templates/measured.html.j2)."""

import shlex
from collections.abc import Iterator, Sequence

from eval.judging.latency_rules import checks_weights
from eval.report import origin
from eval.report.latency import LatencyView, latency_view
from eval.report.load import load_rows
from eval.report.markdown_text import inline
from eval.report.measured_charts import colours, latency_charts, memory_charts
from eval.report.page import template
from eval.report.repeating import of_plugin_and_eplb, shape_name, throughput_words
from eval.report.throughput import throughput_conclusions, throughput_tables
from eval.results.latency import LatencyWorkload
from eval.results.schema import Result

_RANKS = 2
"""The command's default."""


def measured_page(result: Result) -> str:
    """The whole page."""
    view = latency_view(result)
    names = [arm.name for arm in result.arms]
    return template("measured.html.j2").render(
        result=result,
        view=view,
        colours=colours(names),
        latency_charts=list(latency_charts(view)),
        traffics=throughput_tables(result),
        conclusions=list(throughput_conclusions(result)),
        loads=[
            (
                arm.name,
                list(load_rows(arm)),
                list(memory_charts(arm.memory)) if arm.memory else [],
                arm.trial.happenings if arm.trial else [],
            )
            for arm in result.arms
            if arm.load is not None
        ],
        show=lambda text: origin.relative(text, result),
        about=dict(environment_rows(result)),
        command=repeat_command(result),
        servers=origin.server_commands(result),
        configuration=origin.configuration(result),
    )


def measured_markdown(result: Result) -> str:
    """Verdict, figures, rules, environment, command."""
    view = latency_view(result)
    blocks = [f"## {result.kind.capitalize()} run {result.name}: {result.verdict}"]
    blocks += ["\n".join(f"- {_text(reason, result)}" for reason in result.reasons)]
    if view.columns:
        blocks += [_latency(view, result)]
        blocks += ["\n".join(f"- {line}" for line in view.conclusions())]
    for table in throughput_tables(result):
        headings = [table.name, *(column.name for column in table.columns)]
        blocks += [_table(headings, ([row.heading, *row.cells] for row in table.rows()), result)]
    blocks += ["\n".join(f"- {line}" for line in throughput_conclusions(result))]
    for arm in result.arms:
        if arm.load is not None:
            blocks += [_table(["", arm.name], load_rows(arm), result)]
    headings = ["verdict", "rule", "arm", "saw", "limit", "could have detected"]
    rules = [
        [rule.verdict, rule.rule, rule.arm or "", rule.saw, rule.limit, rule.detectable]
        for rule in result.rules
    ]
    blocks += [_table(headings, rules, result) if rules else ""]
    environment = _table(["", ""], environment_rows(result), result)
    blocks += [f"<details><summary>environment</summary>\n\n{environment}\n\n</details>"]
    blocks += [f"```bash\n{repeat_command(result)}\n```"]
    return "\n\n".join(block for block in blocks if block) + "\n"


def environment_rows(result: Result) -> Iterator[tuple[str, str]]:
    """Releases, machine, model and times."""
    for name, values in origin.environment([result]):
        yield name, values[0]


def repeat_command(result: Result) -> str:
    """The command that makes such a run again."""
    words = ["python", "-m", "eval", result.kind]
    if result.latency is not None:
        words += _latency_words(result, result.latency)
    if result.throughput is not None:
        words += throughput_words(result, result.throughput)
    if result.stress is not None:
        load = result.stress
        words += [f"{result.name}.yaml", *(f"--arm={arm.name}" for arm in result.arms)]
        words += ["--seconds", f"{load.seconds:g}", "--streams", str(load.streams)]
        words += ["--hang-seconds", f"{load.hang_seconds:g}"]
        words += ["--rearrangements", str(load.rearrangements)]
        words += ["--soak"] * load.soak
        words += [] if load.fault is None else ["--fault", load.fault]
        words += [] if load.fault_seconds is None else [f"--fault-seconds={load.fault_seconds:g}"]
    return shlex.join(words)


def _latency_words(result: Result, asked: LatencyWorkload) -> Iterator[str]:
    shape, serve = asked.shape, result.config.serve
    checked = [arm.name for arm in result.arms if checks_weights(result.config, arm.name)]
    timed = [arm.name for arm in result.arms if arm.name not in checked]
    for name in timed or [name.removesuffix("-checked") for name in checked]:
        yield from ("--arm", name)
    yield from ("--gpus", str(asked.gpus), "--streams", str(asked.streams))
    yield from ("--tokens", str(asked.tokens), "--servers-at-once", str(asked.servers_at_once))
    yield from ("--shape", shape_name(shape))
    yield from ("--moe-layers", str(shape.moe_layers), "--experts", str(shape.experts))
    yield from ("--redundant", str(shape.redundant))
    yield from ["--graphs"] * (serve.option("compilation-config") is not None)
    if asked.most_p99 is not None:
        yield from ("--most-p99", f"{asked.most_p99:g}")
    if asked.ranks != _RANKS:
        yield from ("--ranks", str(asked.ranks))
    yield from of_plugin_and_eplb(result)
    if asked.load != "steady":
        yield from ("--load", asked.load, "--completions", str(asked.completions))
        yield from ("--turn", str(asked.turn))
        if checked:
            yield from ("--checks", "again" if timed else "only")
    if asked.most_seconds is not None:
        yield from ("--most-seconds", f"{asked.most_seconds:g}")


def _latency(view: LatencyView, result: Result) -> str:
    rows = ([row.heading, *row.cells] for row in view.rows())
    return _table(["ms", *(column.name for column in view.columns)], rows, result)


def _table(
    headings: Sequence[str], rows: Iterator[Sequence[str]] | Sequence[Sequence[str]], result: Result
) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(_text(cell, result) for cell in line)} |" for line in lines)


def _text(text: str, result: Result) -> str:
    """Shown as it is, on one line of a table."""
    return inline(origin.relative(text, result))
