# SPDX-License-Identifier: Apache-2.0
"""Options that several commands below `vllm-eplb bench` have."""

from pathlib import Path
from typing import Annotated

import typer

from vllm_eplb_plugin.bench.shapes import SHAPES

LOADS_VARIABLE = "VLLM_EPLB_LOADS"

Shapes = Annotated[
    list[str] | None,
    typer.Option(
        "--shape",
        help="LAYERSxLOGICAL+REDUNDANT, such as 58x256+32; to plan on several ranks with "
        "/GROUPSxNODESxRANKS behind it; or a model's name; repeatable. "
        f"Without: {', '.join(shape.name for shape in SHAPES)}.",
    ),
]
Rounds = Annotated[int, typer.Option(min=2, help="Calls that are counted.")]
Device = Annotated[str, typer.Option(help="cpu, or cuda.")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write everything here, too.")]
PlotFile = Annotated[
    Path | None, typer.Option("--plot", help="Write a plot (.png, .svg) here, too.")
]
Policies = Annotated[
    list[str] | None,
    typer.Option(
        "--policy",
        help="POLICY[,PARAMETER=VALUE...][+STEP[,PARAMETER=VALUE...]...], such as "
        "incremental,target=0.98; beside those that can be served with: none, swift, biased; "
        "repeatable.",
    ),
]
Seeds = Annotated[int, typer.Option(min=1, help="Seeds of the loads, from 0 on.")]
Sigma = Annotated[float, typer.Option(min=0.0, help="Of a synthetic load's log-popularity.")]
Tokens = Annotated[int, typer.Option(min=1, help="Of a layer and window, over its experts.")]
OtherNodeCost = Annotated[
    float, typer.Option(min=1.0, help="What an expert from another node counts for.")
]
MinGain = Annotated[
    float, typer.Option(min=0.0, max=0.99, help="Balancedness that a layer has to gain.")
]
ExpertMegabytes = Annotated[
    float, typer.Option("--expert-mb", min=0.0, help="Weights of an expert, for the bytes.")
]
LoadsFolder = Annotated[
    Path | None,
    typer.Option(
        "--loads-from",
        envvar=LOADS_VARIABLE,
        help='Folder of recorded loads: JSON files whose "counts" are by domain, layer and expert.',
    ),
]
