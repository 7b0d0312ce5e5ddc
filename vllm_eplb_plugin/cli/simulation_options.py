# SPDX-License-Identifier: Apache-2.0
"""What the commands that simulate are asked for, and refuse before they load anything."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from vllm_eplb_plugin.placement.fast_way import import_problem
from vllm_eplb_plugin.simulation.errors import SimulationError

INTERRUPTED = 130
"""Exit code, as shells have it."""

Recordings = Annotated[
    list[Path],
    typer.Argument(metavar="RECORDING...", help="Folders or files of the setting recording."),
]
ExpertBytes = Annotated[
    int | None,
    typer.Option(min=1, help="Of an expert's weights in one layer. Without: as recorded."),
]


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """Say what is wrong with what was asked for, and leave with 2."""
    from vllm_eplb_plugin.recording.recording import RecordingError

    try:
        yield
    except (SimulationError, RecordingError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error


def require_compiled_policy() -> None:
    """Require that numba can compile policies.

    Raises:
        SimulationError: It cannot.
    """
    if problem := import_problem("vllm_eplb_plugin.planning.policies.default"):
        raise SimulationError(f"policies cannot be compiled ({problem}): install numba")


def require_files(*files: Path | None) -> None:
    """Require that the files that are asked for can be written, before anything is played.

    Raises:
        SimulationError: One cannot.
    """
    for file in files:
        if file is None:
            continue
        if file.is_dir() or not file.parent.is_dir():
            raise SimulationError(f"{file} cannot be written: it is a folder, or in none")
        if not os.access(file if file.exists() else file.parent, os.W_OK):
            raise SimulationError(f"{file} cannot be written: this user may not")
