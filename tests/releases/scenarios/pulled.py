# SPDX-License-Identifier: Apache-2.0
"""Rearrangements to placements drawn at random, and by which way each expert came."""

import functools
import os
import time
from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from vllm.distributed.eplb import eplb_state, rebalance_execute

from tests.releases.scenarios.unchanged_layers import moving
from tests.releases.tiny_model import TinyModel
from tests.releases.two_ranks import LOGICAL, Job, Report, new_state, record_load, wait_for_worker
from vllm_eplb_plugin.engine import peers, transfer_choice
from vllm_eplb_plugin.transfer import peer_layer, peer_memory
from vllm_eplb_plugin.transfer.peer_layer import PeerLayer
from vllm_eplb_plugin.transfer.pulls import Pull

LAYERS = 3


def drive(job: Job, rank: int, config: Any) -> dict[str, Any]:
    """Carry out ``job.rearrangements`` of them.

    ``job.arguments``: ``hosts``, of each rank a name; ``fault``, with the ``fault_of`` rank, one of
    `FAULTS`; ``replaces``, the rearrangement before which all ranks get other tensors; ``late``,
    milliseconds by which a GPU is late with what it copies into weights; ``nixl``, seconds that a
    trial of peers and one of vLLM's communicator, which then calls itself NIXL, are to take.
    """
    hosts = job.arguments.get("hosts", ["one"] * job.ranks)
    peers.host_name = lambda: hosts[rank]
    if rank == job.arguments.get("fault_of"):
        FAULTS[job.arguments["fault"]]()
    if "nixl" in job.arguments:
        call_it_nixl(*job.arguments["nixl"])
    model = TinyModel(rank, job.ranks, LAYERS, LOGICAL, job.redundant, 0)
    if job.device == "cuda":
        onto_gpu(model, rank)
    device = "cpu" if job.device == "cpu" else f"cuda:{rank}"
    state = new_state([model], config, device)
    if "late" in job.arguments:
        be_late(job.arguments["late"])
    state.start_async_loop()
    state.policy = SimpleNamespace(rebalance_experts=draw_placement(state))
    report, ways = Report(job, rank, state), Counter[str]()
    count_ways(ways)
    rearrangements = state.eplb_session.rearrangements
    for step in range(job.steps):
        record_load(state, step)
        if rearrangements.number + 1 == job.arguments.get("replaces") and not moving(state):
            replace_tensors(model)
        state.step()
        ended = rearrangements.number >= job.rearrangements and not moving(state)
        if job.device == "cpu" or ended:
            report.look()  # waits for a GPU, and so lets nothing be late
        if ended:
            break
        wait_for_worker(state)
    pulled = [layer.peers is not None for layer in model.expert_weights]
    return {**report.as_dict(), "ways": dict(ways), "pulled": pulled}


def onto_gpu(model: TinyModel, rank: int) -> None:
    """Move the weights, and compare them on the CPU."""
    for layer in model.moe_layers:
        layer.weights = tuple(tensor.to(f"cuda:{rank}") for tensor in layer.weights)
    compare = model.wrong_slots

    def wrong_slots(placement: torch.Tensor, rank: int) -> list[int]:
        kept = [layer.weights for layer in model.moe_layers]
        for layer in model.moe_layers:
            layer.weights = tuple(tensor.cpu() for tensor in layer.weights)
        wrong = compare(placement.cpu(), rank)
        for layer, weights in zip(model.moe_layers, kept, strict=True):
            layer.weights = weights
        return wrong

    model.wrong_slots = wrong_slots  # type: ignore[method-assign]


def be_late(milliseconds: float) -> None:
    """Keep the stream busy before anything is copied from the buffer into weights."""
    for module in (rebalance_execute, eplb_state):
        module.move_from_buffer = _late(module.move_from_buffer, milliseconds)


def _late(original: Any, milliseconds: float) -> Any:
    @functools.wraps(original)
    def move_from_buffer(*args: Any, **kwargs: Any) -> Any:
        torch.cuda._sleep(int(milliseconds * 2_000_000))  # type: ignore[no-untyped-call]
        return original(*args, **kwargs)

    return move_from_buffer


def call_it_nixl(*seconds: float) -> None:
    """Try both ways as with NIXL, and let them have taken so long."""
    from vllm.distributed.eplb import eplb_communicator  # 0.20 and later

    eplb_communicator.TorchDistGlooStagedEplbCommunicator.__name__ = "NixlEplbCommunicator"
    measure, told = transfer_choice._seconds, iter(seconds)

    def measured(*args: Any) -> float:
        assert measure(*args) > 0
        return next(told)

    transfer_choice._seconds = measured


def draw_placement(state: Any) -> Any:
    """A policy whose answers have every expert, each somewhere else than before."""

    def draw(*arguments: Any) -> torch.Tensor:
        old: torch.Tensor = arguments[-1]
        generator = np.random.default_rng(state.eplb_session.rearrangements.number)
        slots = old.shape[1]
        experts = [*range(LOGICAL), *generator.integers(0, LOGICAL, slots - LOGICAL)]
        rows = [generator.permutation(experts) for _ in range(len(old))]
        return torch.from_numpy(np.stack(rows))

    return draw


def count_ways(ways: Counter[str]) -> None:
    """Count rows that are pulled, from the rank itself or another one, and calls of vLLM's own."""
    plan, original = peer_layer.plan_pulls, rebalance_execute.get_ep_ranks_with_experts_batch

    def count_pulls(old: Any, new: Any, ep_rank: int, *others: Any) -> tuple[Pull, ...]:
        pulls = plan(old, new, ep_rank, *others)
        for pull in pulls:
            ways["own" if pull.rank == ep_rank else "pulled"] += pull.rows
        return pulls

    def count_messages(*args: Any, **kwargs: Any) -> Any:
        ways["planned by vLLM"] += 1
        return original(*args, **kwargs)

    peer_layer.plan_pulls = count_pulls
    rebalance_execute.get_ep_ranks_with_experts_batch = count_messages


def replace_tensors(model: TinyModel) -> None:
    """As a loader that makes new parameters, once: the same weights at other addresses."""
    if getattr(model, "replaced", False):
        return
    model.replaced = True  # type: ignore[attr-defined]
    for layer, weights in zip(model.moe_layers, model.expert_weights, strict=True):
        fresh = tuple(tensor.clone() for tensor in layer.weights)
        for old in layer.weights:
            old.fill_(0)  # whoever still reads these reads nothing of worth
        layer.weights = fresh
        weights[:] = type(weights)(fresh)


def _die_in_a_pull() -> None:
    PeerLayer.fill = lambda *_: os._exit(9)  # type: ignore[assignment, method-assign]


def _raise_in_a_pull() -> None:
    def fill(*_: Any) -> None:
        raise RuntimeError("no copy today")

    PeerLayer.fill = fill  # type: ignore[method-assign]


def _never_end_a_pull() -> None:
    PeerLayer.fill = lambda *_: time.sleep(3600)  # type: ignore[assignment, method-assign]


def _open_nothing() -> None:
    def refuse(*_: Any) -> None:
        raise RuntimeError("invalid device context")

    peer_memory._open = refuse  # type: ignore[assignment]


def _read_something_else() -> None:
    view = peer_memory._view
    peer_memory._view = lambda *args: torch.zeros_like(view(*args))


def _have_no_memory_of_its_own() -> None:
    def refuse(_: Any) -> None:
        raise RuntimeError("Attempted to access the data pointer on an invalid python storage.")

    # What PyTorch says of a tensor that stands for others (a wrapper subclass).
    peers.bytes_to_share = refuse  # type: ignore[assignment]


def _have_little_shared_memory() -> None:
    os.statvfs = lambda _: SimpleNamespace(f_bavail=16, f_frsize=4)  # type: ignore[assignment]


FAULTS = {
    "dies": _die_in_a_pull,
    "raises": _raise_in_a_pull,
    "hangs": _never_end_a_pull,
    "opens nothing": _open_nothing,
    "reads something else": _read_something_else,
    "has no memory of its own": _have_no_memory_of_its_own,
    "has little shared memory": _have_little_shared_memory,
}
