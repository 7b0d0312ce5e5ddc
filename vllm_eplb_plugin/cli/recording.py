# SPDX-License-Identifier: Apache-2.0
"""The commands about recordings: what is inside, and other projects' files from and to them."""

import json
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timezone
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from vllm_eplb_plugin.recording.summary import Summary

_RISING = "▁▂▃▄▅▆▇█"


def recording(
    path: Annotated[Path, typer.Argument(metavar="FOLDER", help="Of the setting recording.")],
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw load and balancedness, as .png or .svg."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Say what a recording of a served model holds (docs/recording.md)."""
    from vllm_eplb_plugin.recording.reader import RecordingError, read_recordings
    from vllm_eplb_plugin.recording.summary import summarize

    try:
        summaries = [summarize(one) for one in read_recordings(path)]
        if plot is not None:
            _plot(summaries, plot)
    except (RecordingError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
    if as_json:
        typer.echo(json.dumps([one.as_dict() for one in summaries], indent=2))
        return
    console = Console(highlight=False)
    for summary in summaries:
        served = summary.recording.served
        release = f"vLLM {served.release}" if served.release else "an unknown vLLM"
        title = f"{served.model or 'unnamed'}, model {served.model_index}, {release}"
        console.print(escape(title), soft_wrap=True)
        console.print(_table(summary))
        for warning in summary.recording.warnings:
            console.print(f"[yellow]note:[/] {escape(warning)}", soft_wrap=True)


def _plot(summaries: "list[Summary]", file: Path) -> None:
    try:
        from vllm_eplb_plugin.cli.recording_plot import plot_recordings
    except ImportError as error:
        raise OSError(f"--plot needs matplotlib: {error}") from error
    try:
        plot_recordings(summaries, file)
    except ValueError as error:  # a kind of file that matplotlib does not write
        raise OSError(f"{file}: {error}") from error


def _table(summary: "Summary") -> Table:
    table = Table(show_header=False, box=None)
    table.add_column(style="dim")
    table.add_column()
    for name, value in _rows(summary):
        table.add_row(name, escape(value))
    return table


def _rows(summary: "Summary") -> Iterator[tuple[str, str]]:
    recording, moments = summary.recording, summary.moments
    served, shape = recording.served, recording.served.shape
    yield "shape", f"{shape.layers} layers of {shape.experts} experts in {shape.slots} slots"
    nodes = f" on {shape.nodes} nodes" if shape.nodes > 1 else ""
    yield "ranks", f"{shape.ranks}{nodes}"
    if served.interval_steps is not None:
        yield "planned", f"every {served.interval_steps} steps, from {served.window_steps}"
    yield "windows", f"{len(moments)}, of steps {moments[0].step} to {moments[-1].step}"
    if moments[0].time:
        yield "time", f"{_utc(moments[0].time)} to {_utc(moments[-1].time)}"
    tokens = [one.tokens for one in moments]
    told = f"{sum(tokens) / len(tokens):,.0f} of a layer and window"
    yield "tokens", f"{told}   {_spark(tokens)}"
    if balanced := summary.balancedness:
        mean = sum(balanced) / len(balanced)
        told = f"{mean:.3f} as served, at least {min(balanced):.3f}"
        yield "balancedness", f"{told}   {_spark(balanced)}"
    if recording.placements:
        experts = f"{summary.experts_moved:,} experts received"
        yield "placements", f"{len(recording.placements)}; {experts}"
    outcomes = Counter(one.outcome for one in recording.outcomes)
    if outcomes:
        yield "outcomes", ", ".join(f"{count} {name}" for name, count in outcomes.most_common())


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M:%SZ")


def _spark(values: list[float], width: int = 24) -> str:
    """Draw values from left to right, the lowest to the highest; a column is a mean.

    One value alone is nothing to draw.
    """
    if len(values) < 2:
        return ""
    columns = min(width, len(values))
    ends = [len(values) * place // columns for place in range(columns + 1)]
    means = [sum(values[start:end]) / (end - start) for start, end in pairwise(ends)]
    low, range_of_means = min(means), max(means) - min(means)
    top = len(_RISING) - 1
    return "".join(
        _RISING[round((one - low) / range_of_means * top) if range_of_means else 0] for one in means
    )
