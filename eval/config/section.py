# SPDX-License-Identifier: Apache-2.0
"""What all parts of a configuration have in common."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """No unknown keys, no conversions, no numbers that are not finite, no changes."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)
