# SPDX-License-Identifier: Apache-2.0
"""The faults that can be ordered, and when one of those that strike once does."""

from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

Wrong = Literal[
    "weights_not_moved",
    "expert_row_swapped",
    "stale_sources",
    "replica_count_off_by_one",
    "invalid_placement",
    "stale_plan",
    "no_rearrangement",
]
"""EPLB goes wrong, and a check has to notice."""

Broken = Literal[
    "worker_raises",
    "worker_hangs",
    "worker_slow",
    "policy_raises",
    "policy_hangs",
    "transfer_fails",
]
"""EPLB breaks on one rank, once, and serving has to go on."""

Fault = Literal[Wrong, Broken]

BROKEN: tuple[str, ...] = get_args(Broken)

_OF_THE_WORKER = ("worker_raises", "worker_hangs", "worker_slow")


def fault_problem(fault: Fault | None, use_async: bool) -> str | None:
    """Say why a fault could never strike; None: it can."""
    if fault in _OF_THE_WORKER and not use_async:
        return f"fault={fault!r} breaks the async worker: set use_async in --eplb-config"
    return None


class FaultOptions(BaseModel):
    """Where and when EPLB breaks."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rank: int = Field(1, ge=0, strict=True)
    """EP rank."""
    rearrangement: int = Field(2, ge=1, strict=True)
    """In which it does, counted from 1."""
    seconds: float = Field(3600.0, gt=0, allow_inf_nan=False, strict=True)
    """How long what hangs does, or what is slow takes."""
