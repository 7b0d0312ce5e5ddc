# SPDX-License-Identifier: Apache-2.0
"""Rearrangements of which one breaks on a rank, between forward passes that all ranks make."""

import time
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
from vllm.distributed.parallel_state import get_ep_group

from tests.releases.scenarios.unchanged_layers import moving
from tests.releases.tiny_model import TinyModel
from tests.releases.two_ranks import LOGICAL, Job, Report, has_layer, new_state, record_load

LAYERS = 3
_STEPS_AFTER = 40
"""Enough for three rearrangements, if there still were any."""
_FORWARD_SECONDS = 0.02


def drive(job: Job, rank: int, config: Any) -> dict[str, Any]:
    """Make steps until ``job.rearrangements`` have ended, or EPLB is off, and a few more.

    ``job.arguments``: ``patience``, in seconds, after which a drive that comes to no end is ended.
    """
    model = TinyModel(rank, job.ranks, LAYERS, LOGICAL, job.redundant, 0)
    state = new_state([model], config)
    state.start_async_loop()
    state.policy = SimpleNamespace(rebalance_experts=every_slot_changes)
    report, session = Report(job, rank, state), state.eplb_session
    give_up_at = time.monotonic() + job.arguments["patience"]
    collectives: list[int] = []
    left, in_time = _STEPS_AFTER, True
    while left and in_time:
        record_load(state, session.rearrangements.step)
        before = entered()
        state.step()
        collectives.append(entered() - before)
        report.look()
        wait_a_little(state)
        done = session.rearrangements.number >= job.rearrangements and not moving(state)
        over, in_time = forward(done or is_off(session), time.monotonic() < give_up_at)
        left -= over
    return {
        **report.as_dict(),
        "in_time": in_time,
        "is_off": is_off(session),
        "moving": moving(state),
        "collectives": collectives,
        "collectives_after": collectives[1 - _STEPS_AFTER :],
    }


def every_slot_changes(*arguments: Any) -> torch.Tensor:
    """Plan the next expert for every slot, so that each rank receives some in every layer."""
    old: torch.Tensor = arguments[-1]
    return (old + 1) % LOGICAL


def is_off(session: Any) -> bool:
    return bool(session.power.state == "off")


def entered() -> int:
    """How many collectives of EP this rank has entered, in groups that a model's thread uses."""
    coordinator = get_ep_group()
    groups = {id(group): group for group in (coordinator.cpu_group, coordinator.device_group)}
    return sum(group._get_sequence_number_for_group() for group in groups.values())


def forward(*flags: bool) -> list[bool]:
    """Whether each holds on all ranks: no rank gets ahead, as in an expert-parallel model."""
    word = torch.tensor([int(flag) for flag in flags])
    dist.all_reduce(word, op=dist.ReduceOp.MIN, group=get_ep_group().cpu_group)
    return [bool(flag) for flag in word]


def wait_a_little(state: Any) -> None:
    """Give the async worker as long as a forward pass takes, or until it has a layer."""
    until = time.monotonic() + _FORWARD_SECONDS
    models = [m for m in state.model_states.values() if m.rebalanced]
    while models and time.monotonic() < until and not any(map(has_layer, models)):
        time.sleep(0.0005)
