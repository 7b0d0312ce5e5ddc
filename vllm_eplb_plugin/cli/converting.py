# SPDX-License-Identifier: Apache-2.0
"""The command that makes recordings of other projects' files, and such files of recordings."""

from pathlib import Path
from typing import Annotated

import typer

from vllm_eplb_plugin.recording.format_names import FOREIGN, OWN

_NAMES = ", ".join([OWN, *FOREIGN])


def convert(
    source: Annotated[
        Path,
        typer.Argument(metavar="IN", help="A recording, events, a placement, or a file of others."),
    ],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="It must not be there yet.")],
    to: Annotated[str, typer.Option(metavar="FORMAT", help=f"One of {_NAMES}.")],
    model_index: Annotated[
        int, typer.Option(min=0, help="0: the model that is served; 1: its drafter.")
    ] = 0,
    first_layer: Annotated[
        int,
        typer.Option(min=0, help="Number of the first MoE layer among all, where OUT has them."),
    ] = 0,
    ranks: Annotated[
        int, typer.Option(min=1, help="EP ranks, where IN does not say how many.")
    ] = 1,
) -> None:
    """Turn a recording, or the events of a server, into another project's file, and back.

    Of several starts of a server the last is taken; its windows are added up where OUT has one.
    """
    from vllm_eplb_plugin.recording.conversion import convert_to
    from vllm_eplb_plugin.recording.recording import RecordingError

    try:
        convert_to(source, target, to, model_index, first_layer, ranks)
    except (RecordingError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
    typer.echo(f"wrote {target}")
