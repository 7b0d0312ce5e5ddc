# SPDX-License-Identifier: Apache-2.0
"""`vllm-eplb bench plan` and `bench schedule`: how to plan, and when."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from vllm_eplb_plugin.bench import options
from vllm_eplb_plugin.bench.requirements import require_compiled_policy, require_files, require_vllm
from vllm_eplb_plugin.bench.result import BenchError, Result
from vllm_eplb_plugin.bench.shapes import SHAPES, Shape, parse_shape

_POLICIES = ("none", "default", "swift", "biased", "incremental")


def plan(
    shape: options.Shapes = None,
    load: Annotated[
        list[str] | None,
        typer.Option(
            help="Synthetic: stationary, slow, medium, half, switch. Recorded: own (the domain "
            "that was planned from is served), another, mix (planned from all). Repeatable. "
            "Without: slow, medium."
        ),
    ] = None,
    policy: options.Policies = None,
    seeds: options.Seeds = 4,
    windows: Annotated[int, typer.Option(min=1, help="Windows planned from, for each seed.")] = 4,
    sigma: options.Sigma = 0.6,
    tokens: options.Tokens = 1_000_000,
    other_node_cost: options.OtherNodeCost = 1.0,
    min_gain: options.MinGain = 0.0,
    expert_mb: options.ExpertMegabytes = 44.0,
    loads_from: options.LoadsFolder = None,
    rounds: Annotated[
        int, typer.Option(min=0, help="Calls of vLLM's policy and its compiled form; 0: none.")
    ] = 30,
    json: options.JsonFile = None,
    plot: options.PlotFile = None,
) -> None:
    """Compare policies: what their plans are worth on the load that comes, and what they move."""
    asked = _asked(locals())
    with _refusals():
        shapes = [parse_shape(name) for name in shape] if shape else None
        require_files(json, plot)
        require_compiled_policy()
        from vllm_eplb_plugin.bench.comparison.contestants import parse_contestant
        from vllm_eplb_plugin.bench.comparison.loads import Loads, tasks
        from vllm_eplb_plugin.bench.comparison.plot import plot_policies
        from vllm_eplb_plugin.bench.comparison.rows import compare
        from vllm_eplb_plugin.bench.comparison.tables import EXPLANATION, policy_tables
        from vllm_eplb_plugin.planning.problem import Limits

        contestants = [parse_contestant(text) for text in policy or _POLICIES]
        loads = Loads(sigma, tokens, windows, seeds, loads_from)
        todo = list(tasks(shapes, load or ["slow", "medium"], loads))
        limits = Limits(min_gain=min_gain, other_node_cost=other_node_cost)
        result = _timings(shapes or list(SHAPES), rounds)
        rows = list(compare(todo, contestants, seeds, int(expert_mb * 1e6), limits))
        _show(policy_tables(rows), EXPLANATION, result)
        if json is not None:
            result.write_json(json, asked=asked, policies=[asdict(row) for row in rows])
        if plot is not None:
            plot_policies(rows, plot)


def schedule(
    shape: options.Shapes = None,
    load: Annotated[
        list[str] | None,
        typer.Option(
            help="Synthetic, as in bench plan; or domains: those of a recording, one after "
            "another. Repeatable. Without: medium."
        ),
    ] = None,
    policy: options.Policies = None,
    every: Annotated[
        list[str] | None,
        typer.Option(
            help="WINDOWS or WINDOWS/RECORDED: short windows from plan to plan, and those "
            "that are planned from, as many without. Repeatable. Without: 8, 4, 2/4, 1/2."
        ),
    ] = None,
    below: Annotated[float | None, typer.Option(help="Plan when so badly balanced.")] = None,
    changed: Annotated[
        float | None, typer.Option(help="Plan when so great a part of the load is another's.")
    ] = None,
    domain_windows: Annotated[int, typer.Option(min=1, help="Short windows of a domain.")] = 11,
    seeds: options.Seeds = 4,
    windows: Annotated[int, typer.Option(min=1, help="Whole windows, for each seed.")] = 4,
    sigma: options.Sigma = 0.6,
    tokens: options.Tokens = 1_000_000,
    other_node_cost: options.OtherNodeCost = 1.0,
    min_gain: options.MinGain = 0.0,
    loads_from: options.LoadsFolder = None,
    json: options.JsonFile = None,
) -> None:
    """Compare when to plan: every so many short windows, or when a trigger says so."""
    asked = _asked(locals())
    with _refusals():
        shapes = [parse_shape(name) for name in shape] if shape else None
        require_files(json, None)
        require_compiled_policy()
        from vllm_eplb_plugin.bench.comparison.contestants import parse_contestant
        from vllm_eplb_plugin.bench.comparison.loads import Loads
        from vllm_eplb_plugin.bench.comparison.schedules import compare_schedules, sequences
        from vllm_eplb_plugin.bench.comparison.served import parse_schedule
        from vllm_eplb_plugin.bench.comparison.tables import SCHEDULE_EXPLANATION, schedule_tables
        from vllm_eplb_plugin.planning.problem import Limits

        contestants = [parse_contestant(text) for text in policy or ("default", "incremental")]
        schedules = [
            parse_schedule(text, below, changed) for text in every or ("8", "4", "2/4", "1/2")
        ]
        loads = Loads(sigma, tokens, windows, seeds, loads_from)
        todo = list(sequences(shapes, load or ["medium"], loads, domain_windows))
        limits = Limits(min_gain=min_gain, other_node_cost=other_node_cost)
        rows = list(compare_schedules(todo, contestants, schedules, seeds, limits))
        result = Result("schedule", "cpu", 0, [])
        _show(schedule_tables(rows), SCHEDULE_EXPLANATION, result)
        if json is not None:
            result.write_json(json, asked=asked, schedules=[asdict(row) for row in rows])


def _asked(options: dict[str, Any]) -> dict[str, str]:
    """What was asked for, without whose machine it was."""
    return {
        name: str(value)
        for name, value in options.items()
        if value is not None and not isinstance(value, Path)
    }


def _timings(shapes: list[Shape], rounds: int) -> Result:
    """Time vLLM's own policy and its compiled form on the same loads."""
    import torch

    torch.set_num_threads(1)
    if not rounds:
        return Result("plan", "cpu", 0, [])
    require_vllm("vllm.distributed.eplb.policy")
    from vllm_eplb_plugin.bench.plan import bench_plan

    rows = [row for shape in shapes for row in bench_plan(shape, rounds)]
    return Result("plan", "cpu", rounds, rows)


def _show(tables: Iterable[Table], explanation: str, result: Result) -> None:
    width = None if Console().is_terminal else 190
    console = Console(highlight=False, markup=False, width=width)
    if result.rows:
        result.show(console)
    for table in tables:
        console.print(table)
    console.print(f"{explanation}; {result.machine['processor']}")


@contextmanager
def _refusals() -> Iterator[None]:
    """Say what cannot be done in a line."""
    try:
        yield
    except (BenchError, ValueError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
