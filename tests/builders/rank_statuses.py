# SPDX-License-Identifier: Apache-2.0
"""What a rank says of itself."""

from typing import Any

from vllm_eplb_plugin.observe.status import ModelStatus, RankStatus, ThreadStatus

NOW = 1_795_632_425.6
"""Unix seconds."""


def model_status(**values: Any) -> ModelStatus:
    """Of a model that was rearranged seven times, but for these values."""
    usual: dict[str, Any] = {
        "model": "some/moe",
        "model_index": 0,
        "layers": 2,
        "outcomes": {"finished": 5, "skipped": 2},
        "seconds": 3.0,
        "last_seconds": 0.4,
        "experts_received": 120,
        "bytes_received": 3_000_000,
        "layers_skipped": 4,
        "balancedness_expected": 0.97,
        "balancedness": [0.91, 0.95],
        "survivable": [1],
    }
    return ModelStatus(**{**usual, **values})


def rank_status(**values: Any) -> RankStatus:
    """Of a rank of two that is well, but for these values."""
    usual: dict[str, Any] = {
        "time": NOW,
        "rank": 0,
        "global_rank": 0,
        "stage": 0,
        "num_ranks": 2,
        "host": "node-a",
        "process": 4711,
        "mode": "async",
        "policy": "incremental",
        "transfer": "memory of peers",
        "state": "on",
        "why": None,
        "step": 1234,
        "steps_to_next": 66,
        "model_thread": ThreadStatus("forward", None, 0.01),
        "worker": ThreadStatus("idle", None, 20.0),
        "under_way": None,
        "seconds_in_eplb": 1.5,
        "stalls": 0,
        "stalled": [],
        "events_dropped": 0,
        "models": [model_status()],
    }
    return RankStatus(**{**usual, **values})
