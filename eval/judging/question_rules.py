# SPDX-License-Identifier: Apache-2.0
"""Rules of what was asked: the same of every arm, and all of it answered? Pure functions."""

from eval.config.questions import WHOLE_TEST_SET
from eval.config.schema import Task
from eval.judging.arms import ArmToJudge, is_repeat, outcome, plural
from eval.judging.sequential import EVERY
from eval.results.schema import RuleResult, TaskRun


def same_questions(task: Task, off: ArmToJudge, arm: ArmToJudge) -> RuleResult:
    """Both arms were asked the same prompts in the same words, with the same right answers."""
    hashes = [_run(one, task).task_hash for one in (off, arm)]
    asked, expected = (
        [(one.doc_id, one.prompt, one.target, one.stop) for one in side.answers(task.name)]
        for side in (arm, off)
    )
    same = asked == expected and hashes[0] == hashes[1]
    return outcome(
        "same_questions",
        same,
        f"{plural(len(asked), 'question')}, hash {hashes[1][:12]}"
        if same
        else f"other questions or prompts than arm {off.name}: {len(asked)} with hash "
        f"{hashes[1][:12]}, there {len(expected)} with hash {hashes[0][:12]}; they changed "
        "between the arms",
        limit=f"documents, prompts and targets as in arm {off.name}",
        detectable="a single other prompt",
        arm=arm.name,
        task=task.name,
    )


def all_answered(task: Task, off: ArmToJudge, arm: ArmToJudge) -> RuleResult:
    """Every question has an answer; the first request that fails ends the evaluation."""
    expected = _expected(task, off, arm)
    answers = [one for one in arm.answers(task.name) if one.text.strip()]
    documents = {one.doc_id for one in answers}
    # The question itself stands after the solved ones.
    questions = {one.prompt.rpartition("Question:")[2] for one in answers}
    answered = min(len(documents), len(questions), _run(arm, task).questions)
    alike = len(answers) > 1 and len({one.text for one in answers}) == 1
    saw = f"{answered} of {plural(expected, 'question')} answered, no request failed"
    empty = len(arm.answers(task.name)) - len(answers)
    if empty:
        saw += f"; {plural(empty, 'answer')} empty, which is none"
    if len(questions) < len(documents):
        saw += f"; only {plural(len(questions), 'different question')}"
    if alike:
        saw += "; every answer is the same text"
    return outcome(
        "all_answered",
        True if answered == expected and not alike else None,
        saw,
        limit=f"all {expected}, each another question, and not all with one text",
        detectable="a single question without an answer",
        arm=arm.name,
        task=task.name,
    )


def no_eplb() -> RuleResult:
    """No arm has EPLB, so nothing is compared with arm ``off``."""
    return outcome(
        "arms_with_eplb",
        None,
        "no arm with EPLB was asked: nothing was tested",
        limit="at least one arm with eplb",
        detectable="nothing",
    )


def _expected(task: Task, off: ArmToJudge, arm: ArmToJudge) -> int:
    """How many; an arm that was asked until its comparison was decided says so itself."""
    if task.until_decided and not is_repeat(arm, off):
        return max(EVERY, _run(arm, task).questions)
    return task.limit or WHOLE_TEST_SET[task.name]


def _run(arm: ArmToJudge, task: Task) -> TaskRun:
    return next(run for run in arm.run.tasks if run.name == task.name)
