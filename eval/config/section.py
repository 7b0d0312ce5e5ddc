# SPDX-License-Identifier: Apache-2.0
"""What all parts of a configuration have in common."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

# A name becomes a folder.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]


class Section(BaseModel):
    """No unknown keys, no conversions, no numbers that are not finite, no changes."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)
