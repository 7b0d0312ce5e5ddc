# SPDX-License-Identifier: Apache-2.0
"""Results of the latency benchmark from before it kept runs: docs/benchmarks has some."""

from typing import Literal

from pydantic import BaseModel

from eval.results.latency import Distribution, LatencyTimes, ModelShape
from eval.results.surroundings import Machine, Versions


class ArmLatency(LatencyTimes):
    """One server."""

    name: str
    start_seconds: float
    rearrangements: int
    """That rank 0 said it began."""
    between_tokens: Distribution
    command: list[str]


class LatencyResult(BaseModel):
    """One run."""

    schema_version: Literal[2]
    model: ModelShape
    streams: int
    tokens: int
    loopback: bool
    gpus: int
    servers_at_once: int
    machine: Machine
    versions: Versions
    arms: list[ArmLatency]
