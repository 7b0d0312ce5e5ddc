# SPDX-License-Identifier: Apache-2.0
"""The part of a configuration that says what a run has to show."""

from typing import Annotated

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, model_validator

from eval.config.section import Section


class Gate(Section):
    """What a run has to show to pass (docs/gates.md)."""

    identical: bool = False
    """Every answer must be, character for character, that of arm ``off``."""
    exact: bool = False
    """Every token must be that of arm ``off``, with the same log-probability, bit for bit."""
    different_answers: NonNegativeInt = 0
    """With ``identical``: so many may differ, of questions that ``off`` answers in two ways."""
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.01
    """Share of runs without a loss that the paired test may fail, over all arms and tasks."""
    margin_points: PositiveFloat | None = 3.0
    """A loss of so many points must be excluded at 95 %; none: no loss has to be."""
    noise_floor: bool = True
    """An arm must repeat ``off``, unless answers must be identical anyway."""
    excess_flips_points: NonNegativeFloat = 5.0
    """An arm's answers may flip so much more often than those of an arm that repeats ``off``."""
    recorded_accuracy: bool = False
    """Every scored task is compared with the accuracy recorded for the model."""
    rearrangements: NonNegativeInt = 1
    """Finished while the questions were asked, in every arm with EPLB."""
    moe_layers: NonNegativeInt = 0
    """At least so many MoE layers, each with changed slots."""
    experts_received: NonNegativeInt = 1
    """By some rank from another one, where a policy of the plugin's planned: so many at least."""
    share_of_bytes: Annotated[float, Field(gt=0, le=1)] | None = None
    """Such an arm receives less than one that plans as vLLM does, a rearrangement so much of it."""

    @model_validator(mode="after")
    def _different_of_identical(self) -> "Gate":
        if self.different_answers and not self.identical:
            raise ValueError(
                f"different_answers {self.different_answers} belongs to identical: set identical "
                "to true, or leave different_answers out"
            )
        return self

    @model_validator(mode="after")
    def _exact_answers_are_identical(self) -> "Gate":
        if self.exact and (not self.identical or self.different_answers):
            raise ValueError(
                "exact allows no other token, so no other answer: set identical to true and leave "
                "different_answers out, or leave exact out"
            )
        return self
