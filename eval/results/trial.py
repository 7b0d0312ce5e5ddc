# SPDX-License-Identifier: Apache-2.0
"""What was done to a server under load besides asking it, and what became of it."""

from pydantic import BaseModel


class Happening(BaseModel):
    """Something that the harness did, or a change of how it asks."""

    what: str
    """``pause``, ``one rank``, ``rank stopped``, ``reload``, or the fault that was ordered."""
    seconds: float
    """Since the load began."""
    took: float
    """Seconds."""
    said: str = ""
    """What the server answered; empty: nothing, or all was well."""


class SameAnswers(BaseModel):
    """Greedy answers to the same few questions, before the load and again and again during it."""

    asked: int = 0
    """During it."""
    different: int = 0
    """From the answer before."""
    example: str | None = None
    """The first that was, beside the one before."""


class FaultSeen(BaseModel):
    """A fault that was ordered, and what the server said and did then."""

    fault: str
    """Its name (docs/faults.md)."""
    rank: int
    """EP rank that it breaks."""
    struck: float | None = None
    """When it did, in Unix seconds; none: it did not."""
    rearrangement: int | None = None
    """In which it did; none: it came from outside."""
    noticed: float | None = None
    """When the log named it, in Unix seconds; none: it did not."""
    said: str | None = None
    """By which line."""
    limit: float
    """Seconds within which it has to be noticed."""
    outcomes: dict[int, str] = {}
    """Of each rearrangement that ended since, by its number."""
    ended_after: float | None = None
    """Seconds from the strike until the last process of the server had ended; none: some live."""
    left: list[str] = []
    """Of a server that had to end: processes and files in /dev/shm that it left."""


class Trial(BaseModel):
    """One server."""

    fault: FaultSeen | None = None
    """None: none was ordered."""

    happenings: list[Happening] = []
    """What happened to a server that was soaked, in order."""
    same_answers: SameAnswers = SameAnswers()
    """Greedy answers, compared."""
    aborted: int = 0
    """Completions that the client broke off, which are not among the requests."""
