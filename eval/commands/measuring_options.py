# SPDX-License-Identifier: Apache-2.0
"""Options that ``latency`` and ``throughput`` have in common."""

from pathlib import Path
from typing import Annotated, Any

import typer

from eval.commands.latency_gpus import RANKS
from eval.commands.latency_setup import Transfer


def instead(least: int, of_shapes: str) -> Any:
    """One of a shape's sizes, given by hand."""
    return typer.Option(min=least, help="Instead of the shape's.", show_default=of_shapes)


TransferOption = Annotated[
    Transfer | None,
    typer.Option(help="The plugin's setting of that name.", show_default="the plugin's"),
]
All2AllOption = Annotated[str | None, typer.Option(help="Of vLLM.", show_default="vLLM's")]
RanksOption = Annotated[int, typer.Option(min=RANKS, help="Of each server.")]
MoeLayersOption = Annotated[int | None, instead(1, "58, 26 or 48")]
ExpertsOption = Annotated[int | None, instead(8, "256, 64 or 128")]
GpusOption = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="To use; 1: loopback, 0: loopback with vLLM built for a CPU.",
        show_default="all, at most one a rank",
    ),
]
GraphsOption = Annotated[bool, typer.Option("--graphs", help="CUDA graphs; a GPU a rank only.")]
FolderOption = Annotated[
    Path | None, typer.Option(help="Instead of runs/NAME.", show_default=False)
]
JsonOption = Annotated[Path | None, typer.Option("--json", help="Write the result here, too.")]
PlotOption = Annotated[Path | None, typer.Option("--plot", help="Write a plot (.png) here.")]
