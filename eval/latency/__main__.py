# SPDX-License-Identifier: Apache-2.0
"""``python -m eval.latency``."""

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from eval.command import find_executable
from eval.errors import EvaluationError, run_to_its_end
from eval.interrupts import interrupts_raise
from eval.latency.arm import FIRST_TOKENS, Setup, measure_arm
from eval.latency.model import ModelShape, write_model
from eval.latency.plot import write_plot
from eval.latency.result import LatencyResult
from eval.machine import installed_versions, this_machine


class ArmName(str, Enum):
    """Which servers there are."""

    off = "off"
    stock = "stock"
    plugin = "plugin"


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def run(
    arms: Annotated[
        list[ArmName] | None, typer.Option("--arm", help="Only this one; repeatable.")
    ] = None,
    streams: Annotated[int, typer.Option(min=1, help="Completions at the same time.")] = 8,
    tokens: Annotated[int, typer.Option(min=2 * FIRST_TOKENS, max=4000, help="Of each.")] = 1000,
    moe_layers: Annotated[int, typer.Option(min=1)] = 58,
    experts: Annotated[int, typer.Option(min=8, help="In each layer.")] = 256,
    redundant: Annotated[int, typer.Option(min=1)] = 32,
    graphs: Annotated[bool, typer.Option("--graphs", help="CUDA graphs; not in loopback.")] = False,
    folder: Annotated[Path, typer.Option(help="For servers' logs and step times.")] = Path(
        "runs/latency"
    ),
    json: Annotated[Path | None, typer.Option("--json", help="Write everything here, too.")] = None,
    plot: Annotated[Path | None, typer.Option("--plot", help="Write a plot (.png) here.")] = None,
) -> None:
    """Time between tokens, and inside EPLB's state manager, while experts move all the time.

    A random model is served by two EP ranks: without EPLB, with vLLM's own and with the plugin's,
    both async. Two GPUs are used if there are two; without any it runs in loopback on the CPU.
    """
    shape = ModelShape(moe_layers=moe_layers, experts=experts, redundant=redundant)
    if (experts + redundant) % 2:
        raise EvaluationError(
            f"--experts {experts} and --redundant {redundant} are {experts + redundant} slots, "
            "which two ranks cannot share evenly: make them an even number together"
        )
    machine = this_machine()
    model = folder / "model"
    gpus = len(machine.accelerators)
    setup = Setup(find_executable(None), model, shape, gpus, graphs, streams, tokens)
    if gpus == 1:
        raise EvaluationError(
            "there is one GPU, and EPLB needs two ranks: loopback serves on a CPU only. Use two, "
            "or a machine without a GPU and vLLM built for a CPU"
        )
    if graphs and setup.loopback:
        raise EvaluationError("--graphs: CUDA graphs cannot capture loopback's collectives")
    for file in (json, plot):
        if file is not None and not file.parent.is_dir():
            raise EvaluationError(f"{file} cannot be written: there is no folder {file.parent}")
    write_model(shape, model)
    console = Console(highlight=False, soft_wrap=True)
    measured = []
    with interrupts_raise():
        for arm in arms or list(ArmName):
            here = folder / arm.value
            _empty(here)
            measured.append(measure_arm(arm.value, setup, here, console))
    result = LatencyResult(
        model=shape,
        streams=streams,
        tokens=tokens,
        loopback=setup.loopback,
        machine=machine,
        versions=installed_versions(),
        arms=measured,
    )
    result.write(folder / "latency.json")
    console.print(result.table())
    for line in result.conclusions():
        console.print(line)
    if json is not None:
        result.write(json)
    if plot is not None:
        write_plot(result, plot)


def _empty(folder: Path) -> None:
    """What an earlier run left would be counted with this one's."""
    for file in [folder / "server.log", *folder.glob("steps/steps*.jsonl")]:
        file.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)


if __name__ == "__main__":
    run_to_its_end(app)
