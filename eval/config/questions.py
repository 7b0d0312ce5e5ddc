# SPDX-License-Identifier: Apache-2.0
"""How many questions of a task are asked."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BeforeValidator

ENOUGH: Literal["enough"] = "enough"
"""Until a loss of ``gate.margin_points`` is decided."""

WHOLE_TEST_SET: Mapping[str, int] = {"gsm8k": 1319, "gsm_tiny": 500}
"""All that there are, by the name of the task."""


def _number_or_enough(value: object) -> object:
    """With one message for both, where pydantic has one for each."""
    if value in (None, ENOUGH):
        return value
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"Input should be a valid integer, {ENOUGH} or null")
    if value < 1:
        raise ValueError("Input should be greater than 0")
    return value


Questions = Annotated[int | Literal["enough"] | None, BeforeValidator(_number_or_enough)]
