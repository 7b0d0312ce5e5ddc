# SPDX-License-Identifier: Apache-2.0
"""What transfers were measured to take, as tables for people."""

from collections.abc import Iterator
from itertools import groupby

from rich.table import Table

from vllm_eplb_plugin.bench.transfer.expert_sizes import ExpertSizes, megabytes
from vllm_eplb_plugin.bench.transfer.task import Answer, Measured, Task

EXPLANATION = (
    "medians [10 to 90 of 100 calls], of the rank that took longest; transfer: vLLM's "
    "move_to_buffer and its stream; held: until that call returned, of the async worker's thread "
    "or, in sync mode, the model's; weights: buffer into weights, move_from_buffer; model held: "
    "until that call returned, of the thread that runs the model in either mode; floor: the bytes "
    "at the link's rate and once more at the memory's; less: times less than gloo, transfer and "
    "weights together. Shares that come to as many experts are measured once; every byte of the "
    "layer was compared after every call"
)


def transfer_tables(answer: Answer, task: Task) -> Iterator[Table]:
    """Make one for each shape."""
    for shape in task.shapes:
        rows = [row for row in answer.rows if row.shape == shape.name]
        yield _table(shape, rows, answer, task)


def _table(shape: ExpertSizes, rows: list[Measured], answer: Answer, task: Task) -> Table:
    layers = answer.layers[shape.name]
    slots = f" of {rows[0].slots} slots a rank" if rows else ""
    title = f"{shape}; {task.ranks} ranks, {layers} layers{slots}"
    table = Table("experts received", "way", title=title, title_justify="left")
    for column in (
        *("transfer, ms", "GB/s each way", "held, ms", "weights, ms", "model held, ms"),
        *("times the floor", "less"),
    ):
        table.add_column(column, justify="right")
    absent = answer.absent.get(shape.name, {})
    for share, group in groupby(rows, lambda row: row.share):
        measured = {row.way: row for row in group}
        name = _name(share, next(iter(measured.values())))
        for way, row in measured.items():
            table.add_row(name, way, *_cells(row, answer, measured.get("gloo")))
            name = ""
        table.add_section()
    if absent:
        table.caption = "; ".join(f"{way}: {why}" for way, why in absent.items())
        table.caption_justify = "left"
    return table


def _name(share: str, row: Measured) -> str:
    return f"{share} ({row.received} of {row.slots}, {megabytes(row.nbytes)})"


def _cells(row: Measured, answer: Answer, gloo: Measured | None) -> list[str]:
    less = "-" if gloo is None else _number(gloo.whole / row.whole)
    return [
        _milliseconds(row.seconds["transfer"]),
        _number(row.bytes_a_second / 1e9),
        _number(row.seconds["held"]["median"] * 1e3),
        _milliseconds(row.seconds["weights"]),
        _number(row.seconds["weights_held"]["median"] * 1e3),
        _number(row.whole / answer.rates.floor(row.nbytes)),
        less,
    ]


def _milliseconds(seconds: dict[str, float]) -> str:
    low, median, high = (_number(seconds[name] * 1e3) for name in ("p10", "median", "p90"))
    return f"{median} [{low} to {high}]"


def _number(value: float) -> str:
    """Three digits, and no exponent."""
    return f"{value:.3g}" if value < 999.5 else f"{value:,.0f}"


def link_line(answer: Answer, task: Task) -> str:
    """Say on what, and how fast its link and its memory are."""
    devices = ", ".join(dict.fromkeys(answer.devices))
    shared = f" All {task.ranks} ranks share one GPU: its link is its memory." * task.shared
    return (
        f"{devices}: {answer.rates.peer / 1e9:.3g} GB/s from a peer in one copy, both ways at "
        f"once, {answer.rates.memory / 1e9:.3g} GB/s within the memory.{shared}"
    )
