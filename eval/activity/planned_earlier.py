# SPDX-License-Identifier: Apache-2.0
"""`rearrangement_planned` as it was before it told what is moved, and by which policy."""

from dataclasses import dataclass, fields
from typing import Any, ClassVar

from vllm_eplb_plugin.observe.events import RearrangementEvent, RearrangementPlanned


@dataclass(frozen=True)
class PlannedEarlier(RearrangementEvent):
    """Of events from before `policy` and what follows it were told."""

    kind: ClassVar[str] = RearrangementPlanned.kind

    layers_changed: int
    seconds: float


_FIELDS = {field.name for field in fields(PlannedEarlier)}


def is_planned_earlier(kind: str, values: dict[str, Any]) -> bool:
    """Whether an event has the earlier fields, and none of those that came together later."""
    return kind == PlannedEarlier.kind and values.keys() <= _FIELDS
