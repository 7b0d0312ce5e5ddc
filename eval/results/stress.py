# SPDX-License-Identifier: Apache-2.0
"""What a stress run asks and what became of it: parts of a result."""

from pydantic import BaseModel

from eval.config.faults import FaultName


class StressWorkload(BaseModel):
    """How the arm was kept busy, besides what the configuration says."""

    seconds: float
    """Of load that were wanted."""
    streams: int
    """Completions at the same time."""
    hang_seconds: float
    """Without any token, after which the server counts as hanging."""
    rearrangements: int
    """That had to finish."""
    fault: FaultName | None = None
    """That was ordered, on one EP rank; none: none was."""
    fault_seconds: float | None = None
    """How long it was to last; none: as docs/faults.md says."""
    soak: bool = False
    """Requests of all lengths come, go and are broken off, and things happen to the server."""


class LoadResult(BaseModel):
    """What an arm was asked under load."""

    requests: int
    """Completions that came to their end."""
    tokens: int
    """That these have."""
    problem: str | None
    """Why the load ended before its time; none: it did not."""
