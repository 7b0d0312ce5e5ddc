# SPDX-License-Identifier: Apache-2.0
"""The options of the watchdog, of metrics and of recordings."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from vllm_eplb_plugin.option_values import WHOLE, Folder


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class WatchOptions(_Options):
    """How long something may stand still (`observe.watchdog`)."""

    warn_after_s: float = Field(30.0, gt=0, allow_inf_nan=False, strict=True)
    """Until it is told, by rank and phase."""
    give_up_after_s: float = Field(600.0, gt=0, allow_inf_nan=False, strict=True)
    """Until the rearrangement that is under way is given up, where serving can go on without."""

    @model_validator(mode="after")
    def _warns_first(self) -> "WatchOptions":
        if self.give_up_after_s < self.warn_after_s:
            raise ValueError("give_up_after_s is below warn_after_s: nobody would be warned")
        return self


class MetricsOptions(_Options):
    """What is told on /metrics beside a few figures of each model (docs/metrics.md)."""

    by_rank: bool = Field(False, strict=True)
    by_layer: bool = Field(False, strict=True)


class RecordingOptions(_Options):
    """Where loads and placements are recorded (docs/recording.md)."""

    dir: Folder
    """Each start of a server makes a folder of its own in it."""
    max_bytes: Annotated[int, Field(ge=10_000_000, lt=2**63, strict=True), WHOLE] = 1_000_000_000
    """Of all files in it together: the oldest go."""
