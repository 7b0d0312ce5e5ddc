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


class Trial(BaseModel):
    """One server."""

    happenings: list[Happening] = []
    same_answers: SameAnswers = SameAnswers()
    aborted: int = 0
    """Completions that the client broke off, which are not among the requests."""
