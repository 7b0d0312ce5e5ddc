# SPDX-License-Identifier: Apache-2.0
"""What ranks say of themselves, for tests of what is told of it."""

from dataclasses import replace
from typing import Any

from vllm_eplb_plugin.observe.status import ModelStatus, RankStatus, ThreadStatus

NOW = 1_800_000_000.0

_MODEL = ModelStatus(
    model="some/moe",
    model_index=0,
    layers=4,
    outcomes={"finished": 3, "rejected": 1},
    seconds=6.5,
    last_seconds=1.25,
    experts_received=40,
    bytes_received=4096,
    layers_skipped=5,
    balancedness_expected=0.97,
    balancedness=[0.5, 0.75, 1.0, 0.75],
    survivable=[1],
    started=5,
    by_mode={"async": {"finished": 3}, "sync": {"rejected": 1}},
    balancedness_overall=0.7,
    tokens=[60, 40],
)


def model_status(**changes: Any) -> ModelStatus:
    """Of a model that was rearranged four times."""
    return replace(_MODEL, **changes)


def rank_status(rank: int = 0, **changes: Any) -> RankStatus:
    """Of one of two ranks, on which all is well; only EP rank 0 tells of the model."""
    told = RankStatus(
        time=NOW - 1,
        rank=rank,
        global_rank=rank,
        stage=0,
        num_ranks=2,
        host="node-a",
        process=100 + rank,
        mode="async",
        policy="vllm",
        transfer="peer",
        state="on",
        why=None,
        step=300 + rank,
        steps_to_next=7,
        model_thread=ThreadStatus("forward", None, 0.5),
        worker=ThreadStatus("transfer", 3, 2.0),
        under_way=None,
        seconds_in_eplb=4.0 + rank,
        stalls=0,
        stalled=[],
        events_dropped=rank,
        models=[] if rank else [_MODEL],
    )
    return replace(told, **changes)
