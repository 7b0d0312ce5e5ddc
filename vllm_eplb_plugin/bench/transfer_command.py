# SPDX-License-Identifier: Apache-2.0
"""`vllm-eplb bench transfer`: how long the experts of a layer take from rank to rank."""

import socket
import subprocess
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from vllm_eplb_plugin.bench import options
from vllm_eplb_plugin.bench.console import console_for_tables
from vllm_eplb_plugin.bench.other_work import tell_load
from vllm_eplb_plugin.bench.requirements import require_device, require_files, require_vllm
from vllm_eplb_plugin.bench.result import BenchError, Result
from vllm_eplb_plugin.bench.transfer.expert_sizes import MODELS, parse_expert_sizes
from vllm_eplb_plugin.bench.transfer.task import WAYS, Answer, Task

_SINCE = ">=0.23"

_Ways = Annotated[
    list[str] | None,
    typer.Option(
        "--way",
        help=f"{', '.join(WAYS)}: vLLM's communicators as they are, and what the plugin's pulls "
        "take. Repeatable. Without: all.",
    ),
]
_Sizes = Annotated[
    list[str] | None,
    typer.Option(
        "--shape",
        help=f"A model's experts ({', '.join(model.name for model in MODELS)}), or the bytes of an "
        "expert's tensors as BYTES+BYTES. Repeatable. Without: those of the models.",
    ),
]


def transfer(
    shape: _Sizes = None,
    way: _Ways = None,
    device: options.Device = "cpu",
    ranks: Annotated[int, typer.Option(min=2, help="Processes, on this host.")] = 2,
    slots: Annotated[
        int | None, typer.Option(min=1, help="Of a rank. Without: 4 on a CPU, at most 40 on GPUs.")
    ] = None,
    layers: Annotated[
        int | None,
        typer.Option(
            min=2, help="MoE layers. Without: 2 on a CPU, as many as the memory takes on GPUs."
        ),
    ] = None,
    rounds: options.Rounds = 20,
    seconds: Annotated[
        float,
        typer.Option(
            min=0.0, help="A way that has taken so long for a share is not called again, after 3."
        ),
    ] = 10.0,
    link_mb: Annotated[
        float, typer.Option(min=0.001, max=1e5, help="Megabytes that the link is measured with.")
    ] = 268.0,
    limit: Annotated[
        float, typer.Option(min=1.0, help="Seconds for which a rank may say nothing.")
    ] = 120.0,
    json: options.JsonFile = None,
    plot: options.PlotFile = None,
) -> None:
    """Move shares of a layer's experts between ranks: gloo, NCCL, NIXL and peer pulls, in turns."""
    load = tell_load()
    try:
        shapes = [parse_expert_sizes(name) for name in shape] if shape else list(MODELS)
        ways = _known(way or list(WAYS))
        require_files(json, plot)
        require_device(device)
        require_vllm("vllm.version")
        vllm = _require_release()
        task = Task(
            ranks=ranks,
            device=device,
            gpus=_gpus(device),
            port=_free_port(),
            shapes=tuple(dict.fromkeys(shapes)),
            ways=ways,
            slots=slots,
            layers=layers,
            rounds=rounds,
            seconds=seconds,
            link_bytes=int(link_mb * 1e6),
        )
        answer = _measure(task, limit)
        result = Result("transfer", device, rounds, [], load)
        _show(answer, task, result, vllm)
        if json is not None:
            asked = asdict(task)
            result.write_json(json, vllm=vllm, commit=_commit(), asked=asked, **answer.as_dict())
        if plot is not None:
            _draw(answer, task, plot)
    except (BenchError, ValueError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error


def _measure(task: Task, limit: float) -> Answer:
    from vllm_eplb_plugin.bench.transfer.measuring import measure

    answer: Answer = _on_a_free_port(measure, task, limit)[0]
    return answer


def _on_a_free_port(job: Callable[..., Any], task: Task, limit: float) -> list[Any]:
    """Run ranks, and once more where the port is taken when they have imported all they need."""
    from vllm_eplb_plugin.bench.transfer.processes import run_ranks

    try:
        return run_ranks(job, task, task.ranks, limit)
    except BenchError as error:
        if "EADDRINUSE" not in str(error):
            raise
    return run_ranks(job, replace(task, port=_free_port()), task.ranks, limit)


def _show(answer: Answer, task: Task, result: Result, vllm: str) -> None:
    from vllm_eplb_plugin.bench.transfer.tables import EXPLANATION, link_line, transfer_tables

    console = console_for_tables()
    for table in transfer_tables(answer, task):
        console.print(table)
    console.print(link_line(answer, task))
    console.print(f"{EXPLANATION}; vLLM {vllm}, {result.machine['processor']}")


def _draw(answer: Answer, task: Task, plot: Path) -> None:
    from vllm_eplb_plugin.bench.transfer.plot import plot_transfers

    plot_transfers(answer, task, plot)


def _known(names: list[str]) -> tuple[str, ...]:
    for name in names:
        if name not in WAYS:
            raise BenchError(f"--way {name}: there are {', '.join(WAYS)}")
    return tuple(dict.fromkeys(names))


def _require_release() -> str:
    """Require a release whose communicators are made for weights and buffer.

    Returns:
        What the vLLM that will be imported calls itself.

    Raises:
        BenchError: It is older.
    """
    from vllm_eplb_plugin.compatibility import installed_support
    from vllm_eplb_plugin.overrides.override import is_among

    support = installed_support()
    if not is_among(support.release, _SINCE):
        raise BenchError(
            f"vLLM {support.release} makes its communicators otherwise: transfers are compared on "
            f"vLLM {_SINCE.strip('>=')} and later"
        )
    return support.installed


def _gpus(device: str) -> int:
    import torch

    return torch.cuda.device_count() if device == "cuda" else 0


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _commit() -> str | None:
    """The plugin's, in a checkout of it."""
    checkout = Path(__file__).parents[2]
    if not (checkout / ".git").exists():
        return None
    command = ["git", "-C", str(checkout), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
