# SPDX-License-Identifier: Apache-2.0
"""`vllm-eplb advise`: what to set, from what was recorded."""

from pathlib import Path
from typing import Annotated

import typer

from vllm_eplb_plugin.cli.simulation_options import (
    INTERRUPTED,
    ExpertBytes,
    refusals,
    require_compiled_policy,
)
from vllm_eplb_plugin.simulation.errors import SimulationError


def advise(
    recording: Annotated[
        Path, typer.Argument(metavar="RECORDING", help="Folder or file of the setting recording.")
    ],
    link: Annotated[
        float, typer.Option(min=1.0, help="Bytes a second that a rank receives from others.")
    ],
    expert_bytes: ExpertBytes = None,
) -> None:
    """Say what to set for a recorded model and why, or that EPLB is not worth it.

    Of a recording of several starts the last is taken, and of its models the one that is served.
    """
    with refusals():
        require_compiled_policy()
        from vllm_eplb_plugin.cli.simulation_run import play_grid, read_all
        from vllm_eplb_plugin.simulation.advice_text import advice, options
        from vllm_eplb_plugin.simulation.advising import choose, grid_of
        from vllm_eplb_plugin.simulation.changes import CHANGED

        found = read_all([recording], expert_bytes)
        targets = [one for one in found if one.served.model_index == 0]
        if not targets:
            raise SimulationError(f"{recording}: only drafters are in it")
        ran = play_grid(targets[-1:], grid_of, link, CHANGED)
        if ran.left:
            raise typer.Exit(INTERRUPTED)
        [result] = ran.results
        choice = choose(result.recording, result.rows)
        for number, line in enumerate(advice(result.recording, choice), 1):
            typer.echo(f"{number:2} {line}")
        if to_copy := options(result.recording, choice, str(recording)):
            typer.echo(f"\n{to_copy}")
