# SPDX-License-Identifier: Apache-2.0
"""What the ranks of a benchmark of transfers are told, and what they answer."""

from dataclasses import asdict, dataclass, field
from typing import Any

from vllm_eplb_plugin.bench.transfer.expert_sizes import ExpertSizes
from vllm_eplb_plugin.bench.transfer.floor import Rates

WAYS = {
    "gloo": "torch_gloo",
    "nccl": "torch_nccl",
    "pynccl": "pynccl",
    "nixl": "nixl",
    "peers": "torch_gloo",
}
"""How experts are moved, with the name of vLLM's communicator; peers has one for other hosts."""

TIMED = ("layer", "transfer", "held", "weights", "weights_held")
"""See `Measured.seconds`."""


@dataclass(frozen=True)
class Task:
    """The same for every rank."""

    ranks: int
    device: str
    """``cpu`` or ``cuda``."""
    gpus: int
    """Of the machine; fewer than ranks: all ranks share the first."""
    port: int
    shapes: tuple[ExpertSizes, ...]
    ways: tuple[str, ...]
    slots: int | None
    """Of a rank; None: as the model has them, at most `MOST_SLOTS`."""
    layers: int | None
    """None: as many as the model has and the memory takes."""
    rounds: int
    seconds: float
    """A way that has taken so long for a row is not called any more, after `LEAST_ROUNDS`."""
    link_bytes: int

    @property
    def shared(self) -> bool:
        """Whether ranks share a GPU."""
        return self.device == "cuda" and self.gpus < self.ranks


@dataclass(frozen=True)
class Measured:
    """One way to move one share of the experts of a layer."""

    shape: str
    share: str
    slots: int
    """Of a rank."""
    received: int
    """Experts, by the rank that receives most."""
    nbytes: int
    """Of them."""
    way: str
    rounds: int
    seconds: dict[str, dict[str, float]]
    """By what is timed, `floor.spread` of the slowest rank of each call: ``layer`` is ``transfer``
    and ``weights`` (from the buffer into them); ``held`` and ``weights_held`` are until the call
    for either returned."""

    @property
    def whole(self) -> float:
        """Seconds for a layer: transfer, and buffer into weights."""
        return self.seconds["layer"]["median"]

    @property
    def bytes_a_second(self) -> float:
        """Received by a rank, which gives as much, while the transfer lasts."""
        return self.nbytes / self.seconds["transfer"]["median"]


@dataclass(frozen=True)
class Answer:
    """What the first rank tells of all."""

    devices: list[str]
    """Of each rank."""
    rates: Rates
    rows: list[Measured]
    layers: dict[str, int]
    """MoE layers held, by shape."""
    absent: dict[str, dict[str, str]] = field(default_factory=dict)
    """By shape and way, why it was not measured."""

    def as_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        rows = [
            asdict(row)
            | {
                "bytes_a_second": row.bytes_a_second,
                "floor_seconds": self.rates.floor(row.nbytes),
                "share_of_floor": self.rates.floor(row.nbytes) / row.whole,
            }
            for row in self.rows
        ]
        return asdict(self) | {"rows": rows}
