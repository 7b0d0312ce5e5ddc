# SPDX-License-Identifier: Apache-2.0
"""When an arm has been asked enough, where a task's questions are ``enough`` (docs/gates.md)."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from eval.config.control_arms import without_controls
from eval.config.schema import Arm, Config, Task
from eval.judging.activity_rules import evidence
from eval.judging.comparison import PairedAnswers, compare
from eval.judging.enough_rules import decide, judge_so_far
from eval.judging.expected_questions import expected_questions
from eval.judging.kept_arm import with_activity
from eval.judging.scoring import score
from eval.judging.sequential import EVERY
from eval.judging.verdict import alpha_of_one_comparison
from eval.load.batches import ALL_AT_ONCE, Asked, Batches
from eval.results.decision import Decision
from eval.results.samples import Sample
from eval.results.schema import ArmRun

_FLIPS = (0.0, 0.05)
"""Shares of answers that flip, for which it is told how many questions are to be expected."""


def asks_all(config: Config, arm: Arm) -> bool:
    """Whether an arm is asked everything: others are compared with ``off`` and its repeats."""
    off = config.arms[0]
    return arm.eplb is None and config.plugin_settings(arm) == config.plugin_settings(off)


def told_beforehand(config: Config) -> Iterator[str]:
    """For each task whose questions are ``enough``, how many these may be."""
    whole = [arm.name for arm in without_controls(config.arms) if asks_all(config, arm)]
    for task in config.tasks:
        margin = config.gate.margin_points
        if not task.until_decided or margin is None or task.limit is None:
            continue
        none, some = (expected_questions(margin / 100, task.limit, share) for share in _FLIPS)
        yield (
            f"{task.name}: asks {task.limit} questions in {', '.join(whole)}; in every other arm "
            f"at most so many, {EVERY} at a time, until a loss of {margin:g} points is decided: "
            f"about {none:.0f} if no answer flips, {some:.0f} if {100 * _FLIPS[1]:g} % do without "
            "a loss, and more where experts do not move enough"
        )


def batches_of(
    config: Config, arm: Arm, task: Task, off: Sequence[Sample], moved: Callable[[Asked], bool]
) -> Batches:
    """How an arm is asked one task.

    Args:
        config: Has the gate.
        arm: Which.
        task: Of `Config.tasks_of` the arm.
        off: Answers of arm ``off``; none yet if the arm is ``off``.
        moved: Whether experts moved as the gate wants it, until the last answer.
    """
    if not task.until_decided:
        return ALL_AT_ONCE
    if asks_all(config, arm):
        return Batches(EVERY, lambda _: False)  # as the others are, which changes what is a batch
    alpha = alpha_of_one_comparison(config)

    def enough(asked: Asked) -> bool:
        so_far = judge_so_far(_paired(task, off, asked.texts), config.gate, alpha)
        return so_far.passed is False or (so_far.passed is True and moved(asked))

    return Batches(EVERY, enough)


def moved_enough(config: Config, arm: Arm, folder: Path, run: ArmRun) -> bool:
    """Whether no rule about what moved lacks evidence, by events and log so far.

    Args:
        config: Has the gate.
        arm: Which.
        folder: Of the arm.
        run: The arm so far.
    """
    if arm.eplb is None:
        return True
    rules = evidence(config.gate, with_activity(folder, config, arm, run, []))
    return all(rule.verdict != "not tested" for rule in rules)


def decision(
    config: Config, arm: Arm, task: Task, off: Sequence[Sample], samples: Sequence[Sample]
) -> Decision | None:
    """Why an arm was asked no more of a task; none: it was to be asked all."""
    if not task.until_decided or asks_all(config, arm):
        return None
    answers = compare(off, samples, task.name, task.limit)
    return decide(answers, config.gate, alpha_of_one_comparison(config))


def in_words(name: str, made: Decision) -> str:
    """What was decided, for who waits."""
    found = {"loss": "a loss", "no loss": f"no loss of {made.margin_points:g} points"}
    if made.found_after is None:
        return f"{name}: undecided after all of {made.at_most} questions"
    return f"{name}: {found[made.found]} after {made.found_after} of {made.at_most} questions"


def _paired(task: Task, off: Sequence[Sample], texts: Sequence[str]) -> PairedAnswers:
    """Answers to the first questions beside those of ``off``, scored as these are."""
    first = sorted((one for one in off if one.task == task.name), key=lambda one: one.doc_id)
    answered = [
        sample.model_copy(update={"text": text, **score(task.name, text, sample.target)._asdict()})
        for sample, text in zip(first, texts, strict=False)
    ]
    return compare(off, answered, task.name, task.limit)
