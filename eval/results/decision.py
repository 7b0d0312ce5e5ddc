# SPDX-License-Identifier: Apache-2.0
"""Why an arm was asked no more questions of a task that asks ``enough``."""

from typing import Literal

from pydantic import BaseModel, ConfigDict


class Decision(BaseModel):
    """By what an arm's comparison with ``off`` was decided, and when (docs/gates.md)."""

    model_config = ConfigDict(allow_inf_nan=False, frozen=True)

    found: Literal["loss", "no loss", "undecided"]
    """A loss, none of ``margin_points`` or more, or neither of them."""
    found_after: int | None
    """Questions asked when that was first seen; none: undecided."""
    looks: int
    """How often the answers were compared; more are asked where experts did not move enough."""
    at_most: int
    """Questions that would have been asked."""
    alpha: float
    """Of this comparison, over all looks."""
    margin_points: float
    """A loss of so many points is what had to be excluded."""
