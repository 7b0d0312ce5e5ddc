# SPDX-License-Identifier: Apache-2.0
"""`vllm-eplb bench plan` and `bench schedule`: how to plan, and when."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from vllm_eplb_plugin.bench import options
from vllm_eplb_plugin.bench.console import console_for_tables
from vllm_eplb_plugin.bench.other_work import Load, tell_load
from vllm_eplb_plugin.bench.requirements import require_compiled_policy, require_files, require_vllm
from vllm_eplb_plugin.bench.result import BenchError, Result
from vllm_eplb_plugin.bench.shapes import SHAPES, Shape, parse_shape

if TYPE_CHECKING:
    from vllm_eplb_plugin.bench.comparison.loads import Task
    from vllm_eplb_plugin.bench.comparison.schedules import Sequence

_FILES = ("loads_from", "json", "plot")
_SYNTHETIC = (
    "stationary, slow (AR(1) 0.99 from window to window), medium (AR(1) 0.95), half (AR(1) 0.5), "
    "switch (a new domain in every window)"
)


def plan(
    shape: options.Shapes = None,
    load: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Synthetic: {_SYNTHETIC}. Recorded: own (the domain that was planned from is "
            "served), another (each other one is), mix (planned from all). Repeatable. "
            "Without: slow, medium."
        ),
    ] = None,
    policy: options.PlanPolicies = None,
    seeds: options.Seeds = 4,
    windows: Annotated[
        int, typer.Option(min=1, help="Windows that are planned from, for each seed.")
    ] = 4,
    sigma: options.Sigma = 0.6,
    tokens: options.Tokens = 1_000_000,
    other_node_cost: options.OtherNodeCost = 1.0,
    min_gain: options.MinGain = 0.0,
    expert_mb: options.ExpertMegabytes = 44.0,
    loads_from: options.LoadsFolder = None,
    rounds: Annotated[
        int,
        typer.Option(min=0, help="Timed calls of vLLM's policy and its compiled form; 0: none."),
    ] = 30,
    json: options.JsonFile = None,
    plot: options.PlotFile = None,
) -> None:
    """Compare policies: what their plans are worth on the load that comes, and what they move."""
    load, policy = load or ["slow", "medium"], policy or list(options.PLAN_POLICIES)
    asked, machine_load = _asked(locals()), tell_load()
    with _refusals():
        shapes = [_of_ranks(name) for name in shape] if shape else None
        require_files(json, plot)
        require_compiled_policy()
        from vllm_eplb_plugin.bench.comparison.contestants import parse_contestant
        from vllm_eplb_plugin.bench.comparison.loads import Loads, tasks
        from vllm_eplb_plugin.bench.comparison.plot import plot_policies
        from vllm_eplb_plugin.bench.comparison.rows import compare
        from vllm_eplb_plugin.bench.comparison.tables import EXPLANATION, policy_tables
        from vllm_eplb_plugin.planning.problem import Limits

        contestants = [parse_contestant(text) for text in policy]
        loads = Loads(sigma, tokens, windows, seeds, loads_from)
        todo = list(tasks(shapes, load, loads))
        limits = Limits(min_gain=min_gain, other_node_cost=other_node_cost)
        result = _timings(shapes or list(SHAPES), rounds, machine_load)
        rows = list(compare(todo, contestants, seeds, int(expert_mb * 1e6), limits))
        _show(policy_tables(rows, console_for_tables().width < _WIDE), EXPLANATION, result)
        if json is not None:
            result.write_json(
                json, asked=asked | _shapes(shape, todo), policies=[asdict(row) for row in rows]
            )
        if plot is not None:
            plot_policies(rows, plot)


def schedule(
    shape: options.Shapes = None,
    load: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Synthetic, a window being {options.PARTS} short ones: {_SYNTHETIC}. Recorded: "
            "domains (one after another). Repeatable. Without: medium."
        ),
    ] = None,
    policy: options.SchedulePolicies = None,
    every: Annotated[
        list[str] | None,
        typer.Option(
            help="WINDOWS or WINDOWS/RECORDED: short windows from plan to plan, and those "
            "that are planned from, as many without. With more WINDOWS than are served, only a "
            "trigger plans. Repeatable. Without: 8, 4, 2/4, 1/2."
        ),
    ] = None,
    below: options.Below = None,
    changed: options.Changed = None,
    domain_windows: Annotated[
        int,
        typer.Option(
            min=1,
            help="Short windows of each domain before the next; for the load domains alone, "
            "synthetic loads have none.",
        ),
    ] = 11,
    seeds: options.Seeds = 4,
    windows: Annotated[
        int,
        typer.Option(
            min=1, help=f"Windows of {options.PARTS} short ones that are served, for each seed."
        ),
    ] = 4,
    sigma: options.Sigma = 0.6,
    tokens: options.Tokens = 1_000_000,
    other_node_cost: options.OtherNodeCost = 1.0,
    min_gain: options.MinGain = 0.0,
    loads_from: options.LoadsFolder = None,
    json: options.JsonFile = None,
) -> None:
    """Compare when to plan: every so many short windows, or when a trigger says so."""
    load, policy = load or ["medium"], policy or list(options.SCHEDULE_POLICIES)
    every = every or ["8", "4", "2/4", "1/2"]
    asked, machine_load = _asked(locals()), tell_load()
    with _refusals():
        shapes = [_of_ranks(name) for name in shape] if shape else None
        require_files(json, None)
        require_compiled_policy()
        from vllm_eplb_plugin.bench.comparison.contestants import parse_contestant
        from vllm_eplb_plugin.bench.comparison.loads import Loads
        from vllm_eplb_plugin.bench.comparison.schedules import compare_schedules, sequences
        from vllm_eplb_plugin.bench.comparison.served import parse_schedule
        from vllm_eplb_plugin.bench.comparison.tables import SCHEDULE_EXPLANATION, schedule_tables
        from vllm_eplb_plugin.planning.problem import Limits

        contestants = [parse_contestant(text) for text in policy]
        schedules = [parse_schedule(text, below, changed) for text in every]
        loads = Loads(sigma, tokens, windows, seeds, loads_from)
        todo = list(sequences(shapes, load, loads, domain_windows))
        limits = Limits(min_gain=min_gain, other_node_cost=other_node_cost)
        rows = list(compare_schedules(todo, contestants, schedules, seeds, limits))
        result = Result("schedule", "cpu", 0, [], machine_load)
        _show(schedule_tables(rows), SCHEDULE_EXPLANATION, result)
        if json is not None:
            result.write_json(
                json, asked=asked | _shapes(shape, todo), schedules=[asdict(row) for row in rows]
            )


def _of_ranks(name: str) -> Shape:
    """Read a shape that there is something to plan for."""
    shape = parse_shape(name)
    if shape.ranks == 1:
        raise BenchError(
            f"shape {name!r} is of 1 rank, which is always balanced: write the ranks behind it as "
            "/GROUPSxNODESxRANKS, such as 48x128+16/1x1x8"
        )
    return shape


def _asked(options: dict[str, Any]) -> dict[str, Any]:
    """What was asked for, and what holds without; not whose files."""
    return {name: value for name, value in options.items() if name not in _FILES}


def _shapes(asked: list[str] | None, todo: "Iterable[Task | Sequence]") -> dict[str, list[str]]:
    return {"shape": asked or list(dict.fromkeys(one.shape.name for one in todo))}


def _timings(shapes: list[Shape], rounds: int, load: Load | None) -> Result:
    """Time vLLM's own policy and its compiled form on the same loads."""
    import torch

    torch.set_num_threads(1)
    if not rounds:
        return Result("plan", "cpu", 0, [], load)
    require_vllm("vllm.distributed.eplb.policy")
    from vllm_eplb_plugin.bench.plan import bench_plan

    rows = [row for shape in shapes for row in bench_plan(shape, rounds)]
    return Result("plan", "cpu", rounds, rows, load)


_WIDE = 125
"""Columns that a table of policies takes, whose names are short."""


def _show(tables: Iterable[Table], explanation: str, result: Result) -> None:
    console = console_for_tables()
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
