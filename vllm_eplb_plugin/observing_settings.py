# SPDX-License-Identifier: Apache-2.0
"""The options of the watchdog and of metrics."""

from pydantic import BaseModel, ConfigDict, Field, model_validator


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
