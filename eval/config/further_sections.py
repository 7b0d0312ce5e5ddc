# SPDX-License-Identifier: Apache-2.0
"""What a run does besides asking its arms: EPLB that is broken, and transformers' answers."""

from pydantic import NonNegativeInt, PositiveInt

from eval.config.section import Name, Section


class Controls(Section):
    """How the arms that ``--control`` adds are asked and judged (docs/controls.md)."""

    arm: Name | None = None
    """Whose EPLB they break; none: that of the first arm with EPLB."""
    questions: PositiveInt | None = 48
    """The first so many of each task; none: as many as all arms."""
    rearrangements: PositiveInt = 8
    """Instead of ``gate.rearrangements``: finished while so few questions were asked."""


class Oracle(Section):
    """Greedy decoding by transformers in float32, which arm ``off`` has to equal."""

    prompts: NonNegativeInt = 0
    """The first so many questions of the first task; 0: no oracle."""
