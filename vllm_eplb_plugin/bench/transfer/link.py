# SPDX-License-Identifier: Apache-2.0
"""How fast the machine copies a whole tensor: from a peer's memory, and within one's own."""

import statistics
import time

import torch
from torch.distributed import ProcessGroup, barrier

from vllm_eplb_plugin.bench.result import BenchError
from vllm_eplb_plugin.bench.transfer.floor import Rates
from vllm_eplb_plugin.engine.gathered import gather_objects
from vllm_eplb_plugin.transfer.peer_memory import (
    SharingError,
    open_shared,
    share,
    shared_memory_problem,
)

_COPIES = 10


def measure_rates(size: int, device: torch.device, group: ProcessGroup) -> Rates:
    """Copy a tensor of ``size`` bytes from the next rank, all ranks at once; and within one's own.

    Raises:
        BenchError: A rank's memory cannot be opened by the one before.
    """
    if device.type == "cpu" and (problem := shared_memory_problem(size * group.size())):
        raise BenchError(f"{problem}: give fewer --link-mb")
    mine = torch.zeros(1, size, dtype=torch.uint8, device=device)
    target = torch.zeros_like(mine)
    try:
        offers = gather_objects(share([[mine]]), group)
        [[theirs]] = open_shared(offers[(group.rank() + 1) % group.size()], device)
    except SharingError as error:
        raise BenchError(f"the link cannot be measured: {error}") from error
    rates = Rates(
        peer=_slowest(target, theirs, group),
        memory=_slowest(target, mine, group),
    )
    barrier(group)  # nobody frees what another still reads
    return rates


def _slowest(target: torch.Tensor, source: torch.Tensor, group: ProcessGroup) -> float:
    """Bytes a second of the rank that copies most slowly."""
    seconds = []
    for _ in range(_COPIES):
        synchronize(target.device)
        barrier(group)
        start = time.perf_counter()
        target.copy_(source, non_blocking=True)
        synchronize(target.device)
        seconds.append(time.perf_counter() - start)
    mine = target.nbytes / statistics.median(seconds[2:])
    return float(min(gather_objects(mine, group)))


def synchronize(device: torch.device) -> None:
    """Wait for everything that was queued on the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
