# SPDX-License-Identifier: Apache-2.0
"""Results of stress runs from before these were kept as other runs are: docs/evidence has some."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel

from eval.activity.totals import Activity
from eval.results.memory import MemorySample
from eval.results.surroundings import Machine, Versions


class StressRule(BaseModel):
    """One thing that had to hold."""

    rule: str
    passed: bool
    saw: str


class StressResult(BaseModel):
    """One run."""

    schema_version: Literal[1, 2, 3]
    """1, 2: from before outcomes were told."""
    name: str
    arm: str
    started: datetime
    seconds: float
    streams: int
    requests: int
    tokens: int
    problem: str | None
    evidence: Activity
    ranks: int
    logged_rearrangements: int
    memory: list[MemorySample]
    memory_of_processes: bool
    gpu_growth_mib: float | None
    host_growth_mib: float | None
    rules: list[StressRule]
    machine: Machine
    versions: Versions
    config_sha256: str
    command: list[str]
