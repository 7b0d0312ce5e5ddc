# SPDX-License-Identifier: Apache-2.0
"""What is told of a rearrangement that did not finish."""

from vllm_eplb_plugin.engine.plan_events import Moment
from vllm_eplb_plugin.observe.events import (
    Event,
    RearrangementDrained,
    RearrangementFailed,
    RearrangementRejected,
    RearrangementSkipped,
    RearrangementStalled,
)
from vllm_eplb_plugin.observe.progress import Outcome


def unfinished(
    outcome: Outcome, moment: Moment, reason: str, layers_left: int | None, seconds: float
) -> Event:
    """Make the event of an outcome."""
    if outcome == "skipped":
        return RearrangementSkipped(*moment, seconds, reason)
    if outcome == "rejected":
        return RearrangementRejected(*moment, seconds, reason)
    if outcome == "drained":
        return RearrangementDrained(*moment, seconds, layers_left)
    if outcome == "stalled":
        return RearrangementStalled(*moment, seconds, reason, layers_left)
    return RearrangementFailed(*moment, seconds, reason, layers_left)
