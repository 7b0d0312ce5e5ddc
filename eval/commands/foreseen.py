# SPDX-License-Identifier: Apache-2.0
"""What keeps a run from passing whatever its servers answer, told before any of them starts."""

from collections.abc import Iterator

from eval.commands.stopping import asks_all
from eval.config.control_arms import without_controls
from eval.config.schema import Config
from eval.judging.statistics import Pairs, largest_loss
from eval.judging.verdict import untested


def foreseen(config: Config) -> Iterator[str]:
    """Each as a sentence without a full stop; none: the verdict depends on what is answered.

    Args:
        config: Its arms are those that are asked, ``off`` first.
    """
    _, *others = without_controls(config.arms)
    with_eplb = sum(arm.eplb is not None for arm in others)
    repeats = sum(asks_all(config, arm) for arm in others)
    for missing in untested(config.gate, len(others), with_eplb, repeats):
        yield f"{missing.saw}; it takes {missing.limit}"
    if with_eplb:
        yield from _too_few_questions(config)


def _too_few_questions(config: Config) -> Iterator[str]:
    margin = config.gate.margin_points
    for task in config.tasks:
        if margin is None or task.limit is None or not task.scored:
            continue
        excluded = 100 * largest_loss(Pairs(both=task.limit, lost=0, won=0, neither=0))
        if excluded > margin:
            yield (
                f"{task.name}: {task.limit} questions exclude no loss below {excluded:.3g} points, "
                f"not even if no answer flips, and gate.margin_points is {margin:g}; it takes more "
                "questions"
            )
