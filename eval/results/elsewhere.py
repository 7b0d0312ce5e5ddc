# SPDX-License-Identifier: Apache-2.0
"""What is kept of a server that the harness did not start."""

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel

from eval.activity.by_metrics import tells_of_eplb
from eval.activity.scrapes import Scrape

Witness = Literal["events", "metrics", "nothing"]
"""What tells of EPLB's activity."""


class ServedElsewhere(BaseModel):
    """Where an arm was asked that the harness did not start, and what tells of its EPLB."""

    url: str
    """Of its server, without a user and a password."""
    served_model: str
    """What that calls the model, and was asked for."""
    with_key: bool
    """Whether a key was shown to it."""
    release: str | None
    """Of its vLLM; none: it does not tell."""
    witness: Witness
    """What its EPLB is judged by: its plugin's ``events``, its ``metrics``, or ``nothing``."""
    lacking: str
    """Why it is not judged by events, or by nothing at all."""


def witness_of(has_eplb: bool, any_events: bool, scrapes: Sequence[Scrape]) -> Witness:
    """The best that is there; where EPLB is off only metrics can show it, for no file tells.

    Args:
        has_eplb: Whether the arm does.
        any_events: Whether any rank's file is there.
        scrapes: Of its /metrics, from before the first question to after the last answer.
    """
    if (
        not has_eplb
        and len(scrapes) > 1
        and all(one.generated_tokens is not None for one in scrapes)
    ):
        return "metrics"
    if any_events:
        return "events"
    return "metrics" if tells_of_eplb(scrapes) else "nothing"
