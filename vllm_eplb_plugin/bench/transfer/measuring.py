# SPDX-License-Identifier: Apache-2.0
"""What each rank of a benchmark of transfers does."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.distributed import ReduceOp, all_reduce, barrier

from vllm_eplb_plugin.bench.transfer.expert_sizes import ExpertSizes, megabytes
from vllm_eplb_plugin.bench.transfer.floor import spread
from vllm_eplb_plugin.bench.transfer.held_weights import HeldWeights, layers_that_fit
from vllm_eplb_plugin.bench.transfer.link import measure_rates, synchronize
from vllm_eplb_plugin.bench.transfer.placements import (
    SHARES,
    Placement,
    Share,
    draw_next,
    first_placement,
    moved_slots,
    received_slots,
)
from vllm_eplb_plugin.bench.transfer.task import TIMED, Answer, Measured, Task
from vllm_eplb_plugin.engine.gathered import gather_objects

if TYPE_CHECKING:
    from vllm_eplb_plugin.bench.transfer.ways import Makers, Way

MOST_SLOTS, CPU_SLOTS = 40, 4
"""Slots of a rank without ``--slots``."""
CPU_LAYERS = 2
LEAST_ROUNDS, WARM_UP = 3, 2
_MEMORY_TAKEN = 0.8
"""Of what is free on a GPU: vLLM's communicators take some, too."""


def measure(task: Task, rank: int, say: Callable[[str], None]) -> Answer | None:
    """Measure everything that is asked for; all ranks together.

    Returns:
        On the first rank, what all of them saw.
    """
    torch.set_num_threads(1)
    say("importing vLLM and making its process groups")
    from vllm_eplb_plugin.bench.transfer.vllm_groups import vllm_groups

    with vllm_groups(task, rank) as group:
        answer = _Rank(task, rank, group, say).measure()
    return answer if rank == 0 else None


class _Rank:
    def __init__(self, task: Task, rank: int, group: Any, say: Callable[[str], None]) -> None:
        self._task, self._number, self._say = task, rank, say
        self._group = group.cpu_group
        self._device = _device(task, rank)
        self._makers = _makers(task, group)
        self._generator = np.random.default_rng(0)  # so that all ranks draw the same

    def measure(self) -> Answer:
        self._say(f"copying {megabytes(self._task.link_bytes)} from rank to rank")
        rates = measure_rates(self._task.link_bytes, self._device, self._group)
        self._let_go()
        devices = gather_objects(_name(self._device), self._group)
        answer = Answer(devices, rates, [], {})
        for shape in self._task.shapes:
            self._measure_shape(shape, answer)
            self._let_go()
        return answer

    def _measure_shape(self, shape: ExpertSizes, answer: Answer) -> None:
        self._say(f"{shape.name}: taking memory")
        slots = self._task.slots or _usual_slots(shape, self._task)
        layers = self._agree(self._task.layers or self._layers(shape, slots))
        held = HeldWeights(shape, layers, slots, self._number, self._device)
        answer.layers[shape.name] = layers
        ways: dict[str, Way] = {}
        for name in self._task.ways:
            self._say(f"{shape.name}: making {name}")
            made = self._make(name, held)
            if isinstance(made, str):
                answer.absent.setdefault(shape.name, {})[name] = made
            else:
                ways[name] = made
        placement = first_placement(self._task.ranks, slots)
        held.fill(placement)
        placements = [placement] * layers
        barrier(self._group)
        for share in _different(slots):
            answer.rows.extend(self._measure_share(shape, share, held, ways, placements))

    def _make(self, name: str, held: HeldWeights) -> "Way | str":
        """A way, or why some rank cannot have it."""
        from vllm_eplb_plugin.bench.transfer.ways import Absent

        try:
            made: Way | str = self._makers.make(name, held)
        except Absent as absent:
            made = str(absent)
        reasons = gather_objects(made if isinstance(made, str) else None, self._group)
        return next((reason for reason in reasons if reason is not None), made)

    def _measure_share(
        self,
        shape: ExpertSizes,
        share: Share,
        held: HeldWeights,
        ways: "dict[str, Way]",
        placements: list[Placement],
    ) -> list[Measured]:
        """Call every way once a round, each from the placement that the one before has left."""
        task = self._task
        other = [draw_next(one, task.ranks, share, self._generator) for one in placements]
        received = max(
            received_slots(old, new, rank, task.ranks)
            for old, new in zip(placements, other, strict=True)
            for rank in range(task.ranks)
        )
        times: dict[str, list[list[float]]] = {name: [] for name in ways}
        for number in range(WARM_UP + task.rounds):
            layer = number % len(placements)
            for name, way in ways.items():
                if self._has_enough(times[name]):
                    continue
                self._say(f"{shape.name}, {share.name}, {name}, call {number + 1}")
                old, new = placements[layer], other[layer]
                times[name].append(self._call(way, layer, old, new))
                held.check(layer, new, f"{shape.name}, {share.name}, {name}")
                placements[layer], other[layer] = new, old
        slots = len(held.buffer[0])
        return [
            Measured(
                shape.name,
                share.name,
                slots,
                received,
                received * shape.expert_bytes,
                name,
                len(calls) - WARM_UP,
                {
                    what: spread(column)
                    for what, column in zip(TIMED, zip(*calls[WARM_UP:], strict=True), strict=True)
                },
            )
            for name, calls in times.items()
        ]

    def _has_enough(self, calls: list[list[float]]) -> bool:
        """Whether a way takes too long to be called again; the same on all ranks."""
        seconds = sum(call[0] for call in calls)
        return len(calls) >= WARM_UP + LEAST_ROUNDS and seconds > self._task.seconds

    def _call(self, way: "Way", layer: int, old: Placement, new: Placement) -> list[float]:
        """Seconds of each of `TIMED`, of the rank that took longest."""
        self._wait()
        start = time.perf_counter()
        received = way.transfer(layer, old, new)
        returned = time.perf_counter()
        way.stream.synchronize()
        transferred = time.perf_counter()
        self._wait()
        begin = time.perf_counter()
        way.commit(layer, new, received)
        committed = time.perf_counter()
        synchronize(self._device)
        end = time.perf_counter()
        mine = (transferred - start, returned - start, end - begin, committed - begin)
        slowest = torch.tensor(mine, dtype=torch.float64)
        all_reduce(slowest, op=ReduceOp.MAX, group=self._group)
        transfer, held, weights, weights_held = slowest.tolist()
        return [transfer + weights, transfer, held, weights, weights_held]

    def _wait(self) -> None:
        synchronize(self._device)
        barrier(self._group)

    def _layers(self, shape: ExpertSizes, slots: int) -> int:
        if self._device.type == "cpu":
            return CPU_LAYERS
        free = torch.cuda.mem_get_info(self._device)[0] * _MEMORY_TAKEN
        barrier(self._group)  # ranks that share a GPU all look before any takes
        return layers_that_fit(shape, slots, free / (self._task.ranks if self._task.shared else 1))

    def _let_go(self) -> None:
        """Free weights that no rank has open any more."""
        barrier(self._group)
        if self._device.type == "cuda":
            torch.cuda.ipc_collect()  # type: ignore[no-untyped-call]
            torch.cuda.empty_cache()
        barrier(self._group)

    def _agree(self, layers: int) -> int:
        least = torch.tensor([layers])
        all_reduce(least, op=ReduceOp.MIN, group=self._group)
        return int(least.item())


def _makers(task: Task, group: Any) -> "Makers":
    from vllm_eplb_plugin.bench.transfer.ways import Makers, bind_host_streams
    from vllm_eplb_plugin.compatibility import installed_support

    release = installed_support().release
    if task.device == "cpu":
        bind_host_streams(release)
    return Makers(group, release)


def _usual_slots(shape: ExpertSizes, task: Task) -> int:
    return min(shape.slots // task.ranks, CPU_SLOTS if task.device == "cpu" else MOST_SLOTS)


def _different(slots: int) -> list[Share]:
    """Those shares that come to another number of slots than the one before."""
    found: dict[tuple[bool, int], Share] = {}
    for share in SHARES:
        found.setdefault((share.whole, moved_slots(share, slots)), share)
    return list(found.values())


def _device(task: Task, rank: int) -> torch.device:
    if task.device == "cpu":
        return torch.device("cpu")
    return torch.device("cuda", 0 if task.shared else rank)


def _name(device: torch.device) -> str:
    if device.type == "cpu":
        return "cpu"
    properties = torch.cuda.get_device_properties(device)
    return f"{properties.name} (cuda:{device.index})"
