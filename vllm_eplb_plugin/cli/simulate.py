# SPDX-License-Identifier: Apache-2.0
"""`vllm-eplb simulate`: what EPLB would have done with other settings."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from vllm_eplb_plugin.cli.simulation_options import (
    INTERRUPTED,
    ExpertBytes,
    Recordings,
    refusals,
    require_compiled_policy,
    require_files,
)

Counts = list[int] | None


def _file(name: str, what: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(name, help=f"Write {what} here, too.")
    return option


def _counts(lowest: int, what: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(min=lowest, help=f"{what} Repeatable.")
    return option


def simulate(
    recording: Recordings,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            help="A policy's name, the setting planning as JSON, vllm (as without that setting) "
            "or none (nothing moves). Repeatable. Without: none, default, incremental."
        ),
    ] = None,
    redundant: Annotated[Counts, _counts(0, "Redundant experts of a layer.")] = None,
    ranks: Annotated[Counts, _counts(1, "EP ranks.")] = None,
    nodes: Annotated[Counts, _counts(1, "Nodes.")] = None,
    interval: Annotated[Counts, _counts(1, "Plan every so many windows. Without: 1.")] = None,
    window: Annotated[Counts, _counts(1, "Plan from the last so many. Without: 1.")] = None,
    expert_bytes: ExpertBytes = None,
    link: Annotated[
        float | None, typer.Option(min=1.0, help="Bytes a second that a rank receives.")
    ] = None,
    changed: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Part of the load on other experts than in the window before that makes another "
            "domain.",
        ),
    ] = 0.15,
    json: Annotated[Path | None, _file("--json", "everything")] = None,
    csv: Annotated[Path | None, _file("--csv", "a line for each combination")] = None,
    html: Annotated[Path | None, _file("--html", "a page with charts")] = None,
) -> None:
    """Play recordings with other settings: how balanced they serve, and what they move."""
    with refusals():
        require_files(json, csv, html)
        require_compiled_policy()
        from vllm_eplb_plugin.cli.simulation_run import play_grid, read_all
        from vllm_eplb_plugin.simulation.candidate import parse_candidate
        from vllm_eplb_plugin.simulation.combination import Grid
        from vllm_eplb_plugin.simulation.page import render_page
        from vllm_eplb_plugin.simulation.result import write_csv, write_json
        from vllm_eplb_plugin.simulation.tables import EXPLANATION, headline, notes, tables

        names = policy or ["none", "default", "incremental"]
        grid = Grid(
            [parse_candidate(name) for name in names],
            redundant or (), ranks or (), nodes or (), interval or (1,), window or (1,),
        )  # fmt: skip
        recordings = read_all(recording, expert_bytes)
        ran = play_grid(recordings, lambda _: grid, link, changed)
        console = Console(highlight=False)
        for one in ran.results:
            console.print(headline(one), markup=False)
            for table in tables(one):
                console.print(table)
            for line in notes(one):
                console.print(line, markup=False, soft_wrap=True)
        if ran.results:
            console.print(EXPLANATION, markup=False)
        if json is not None:
            write_json(json, ran.results, link=link, changed=changed)
        if csv is not None:
            write_csv(csv, ran.results)
        if html is not None:
            html.write_text(render_page(ran.results), encoding="utf-8")
    if ran.left:
        raise typer.Exit(INTERRUPTED)
