# SPDX-License-Identifier: Apache-2.0
"""Options that several commands below `vllm-eplb bench` have."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from vllm_eplb_plugin.bench.shapes import SHAPES

LOADS_VARIABLE = "VLLM_EPLB_LOADS"

PARTS = 8
"""Short windows of `bench schedule` that together are one window of `bench plan`, in tokens and in
drift."""

Shapes = Annotated[
    list[str] | None,
    typer.Option(
        "--shape",
        help="LAYERSxLOGICAL+REDUNDANT, such as 58x256+32; to plan on several ranks with "
        "/GROUPSxNODESxRANKS behind it, such as 58x256+32/8x4x32; or a model's name. Repeatable. "
        f"Without: {', '.join(shape.name for shape in SHAPES)}.",
    ),
]
Rounds = Annotated[int, typer.Option(min=2, help="Calls that are counted.")]
Device = Annotated[str, typer.Option(help="cpu, or cuda.")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write everything here, too.")]
PlotFile = Annotated[
    Path | None, typer.Option("--plot", help="Write a plot (.png, .svg) here, too.")
]


def _policies(without: Sequence[str]) -> Any:
    return typer.Option(
        "--policy",
        help="Policies, with steps as default+keep_in_place, with parameters as "
        "incremental,target=0.98 (values in JSON); none, swift and biased are rivals to compare "
        f"with. Repeatable. Without: {', '.join(without)}.",
    )


def _finite(value: float) -> float:
    """Refuse what no bound does, since it is neither below nor above any."""
    if not math.isfinite(value):
        raise typer.BadParameter(f"{value} is no finite number.")
    return value


def _share(value: float | None) -> float | None:
    if value is not None and not 0 < value < 1:
        raise typer.BadParameter(f"{value:g} is not above 0 and below 1.")
    return value


PLAN_POLICIES = (
    "none",
    "default",
    "default+keep_in_place",
    "replicas_only",
    "incremental",
    "swift",
    "biased",
)
SCHEDULE_POLICIES = ("default", "incremental")
PlanPolicies = Annotated[list[str] | None, _policies(PLAN_POLICIES)]
SchedulePolicies = Annotated[list[str] | None, _policies(SCHEDULE_POLICIES)]
Seeds = Annotated[int, typer.Option(min=1, help="Seeds that each load is made from, from 0 on.")]
Sigma = Annotated[
    float,
    typer.Option(
        min=0.0,
        max=10.0,
        callback=_finite,
        help="Standard deviation of the log-popularity of experts in synthetic loads; 0: all are "
        "equally popular.",
    ),
]
Tokens = Annotated[
    int,
    typer.Option(
        min=PARTS,
        max=10**12,
        help="Tokens that the experts of a layer take together in a window.",
    ),
]
OtherNodeCost = Annotated[
    float,
    typer.Option(
        min=1.0,
        max=1000.0,
        callback=_finite,
        help="How many experts from the same node one from another node counts for.",
    ),
]
MinGain = Annotated[
    float,
    typer.Option(
        min=0.0,
        max=0.99,
        callback=_finite,
        help="Balancedness that a layer has to gain, or it stays as it is.",
    ),
]
ExpertMegabytes = Annotated[
    float,
    typer.Option(
        "--expert-mb",
        min=0.0,
        max=1e6,
        callback=_finite,
        help="Megabytes of an expert's weights, from which the bytes received are counted.",
    ),
]
Below = Annotated[
    float | None,
    typer.Option(callback=_share, help="Plan when balancedness is below this, between 0 and 1."),
]
Changed = Annotated[
    float | None,
    typer.Option(
        callback=_share,
        help="Plan at once when this part of the load, between 0 and 1, is on other experts.",
    ),
]
LoadsFolder = Annotated[
    Path | None,
    typer.Option(
        "--loads-from",
        envvar=LOADS_VARIABLE,
        help='Folder of recorded loads: JSON files whose "counts" are by domain, layer and expert.',
    ),
]
