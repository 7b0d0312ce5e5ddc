# SPDX-License-Identifier: Apache-2.0
"""From results and kept runs to what reports show of them (`eval.report.view`)."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from eval.activity.moved_models import labels
from eval.activity.timeline import Timeline
from eval.config.control_arms import without_controls
from eval.judging.comparison import Accuracy, accuracy, compare
from eval.report import origin, wording
from eval.report.arm_counts import arm_counts
from eval.report.policies import policy_rows
from eval.report.runs import ArmRecord, Run
from eval.report.speed import speed
from eval.report.view import (
    ArmAccuracy,
    ArmMoved,
    ArmPairs,
    KeptRunView,
    Moved,
    ReportView,
    RunView,
)
from eval.report.where import served
from eval.results.schema import ArmResult, Result, RuleResult, TaskRun


def view_of_result(result: Result) -> RunView:
    """Of a result alone, as it is."""
    return RunView(**_of_result(result, result.name, str))


def view_of_runs(runs: Sequence[Run]) -> ReportView:
    """Of one or more kept runs of the same model and tasks."""
    views = [_of_run(run) for run in runs]
    first = runs[0].result
    verdict = wording.worst([view.verdict for view in views])
    return ReportView(
        runs=views,
        verdict=verdict,
        meaning=wording.meaning(verdict, [view.verdict for view in views]),
        model=origin.without_folder(first.config.model),
        subject=wording.subject(first, [arm for view in views for arm in view.arms]),
        reasons=[
            wording.of_run(view.label, reason, views) for view in views for reason in view.reasons
        ],
        notes=[
            wording.of_run(view.label, note, views)
            for view in views
            for note in wording.notes(view)
        ],
        facts=list(wording.facts([run.result for run in runs], views)),
        environment=list(origin.environment([run.result for run in runs])),
    )


def _of_run(run: Run) -> KeptRunView:
    def show(text: str) -> str:
        return origin.relative(text, run.result)

    values = _of_result(run.result, run.label, show)
    values["accuracies"] = [one for arm in run.arms for one in _from_answers(run, arm)]
    if run.missing:
        missing = f"arms that were not finished: {', '.join(run.missing)}"
        values["reasons"] = [*values["reasons"], missing]
    return KeptRunView(
        **values,
        groups=wording.rule_groups(values["rules"]),
        pairs=[pairs for arm in run.arms[1:] for pairs in _pairs(run, arm)],
        moved=[
            ArmMoved(run.label, arm.result.name, list(_moved(arm.timelines)))
            for arm in run.arms
            if arm.timelines
        ],
        repeat=origin.repeat(run.result),
    )


def _of_result(result: Result, label: str, show: Callable[[str], str]) -> dict[str, Any]:
    arms = without_controls(result.arms)  # controls have a table of their own
    return {
        "label": label,
        "name": result.name,
        "verdict": result.verdict,
        "reasons": [show(reason) for reason in result.reasons],
        "rules": [_rule(rule, show) for rule in result.rules],
        "controls": [
            one.model_copy(update={"saw": [show(saw) for saw in one.saw]})
            for one in result.controls
        ],
        "left_out": {task: show(why) for task, why in result.left_out.items()},
        "notes": [show(note) for note in result.notes],
        "started": result.started,
        "finished": result.finished,
        "seconds": sum((arm.start_seconds or 0.0) + arm.seconds for arm in result.arms),
        "versions": result.versions,
        "served": served(result),
        "speed": speed(result),
        "accuracies": [one for arm in arms for one in _from_result(result, arm)],
        "counts": [arm_counts(arm, result) for arm in arms],
        "policies": list(policy_rows(label, arms)),
    }


def _rule(rule: RuleResult, show: Callable[[str], str]) -> RuleResult:
    return rule.model_copy(update={"saw": show(rule.saw)})


def _from_result(result: Result, arm: ArmResult) -> Iterator[ArmAccuracy]:
    for task in arm.tasks:
        if task.scored and task.questions:
            share = Accuracy(round(task.accuracy * task.questions), task.questions)
            yield _accuracy(result, result.name, arm, task, share)


def _from_answers(run: Run, arm: ArmRecord) -> Iterator[ArmAccuracy]:
    for task in arm.result.tasks:
        share = accuracy(arm.samples, task.name)
        if task.scored and share.questions:
            yield _accuracy(run.result, run.label, arm.result, task, share)


def _accuracy(
    result: Result, run: str, arm: ArmResult, task: TaskRun, share: Accuracy
) -> ArmAccuracy:
    shots = {one.name: one.fewshot for one in result.config.tasks}
    fewshot = shots.get(task.name, 0)
    return ArmAccuracy(run, arm.name, task.name, fewshot, share, task.accuracy_flexible)


def _pairs(run: Run, arm: ArmRecord) -> Iterator[ArmPairs]:
    """Of every task of which an arm and ``off`` were asked the same."""
    for task in arm.result.tasks:
        most = task.decision.at_most if task.decision else None
        answers = compare(run.arms[0].samples, arm.samples, task.name, most)
        if answers.doc_ids:
            yield ArmPairs(run.label, arm.result.name, task.scored, answers)


def _moved(timelines: Sequence[Timeline]) -> Iterator[Moved]:
    names = labels([one.model for one in timelines])
    for name, timeline in zip(names, timelines, strict=True):
        times = list(wording.times(timeline)) if timeline.rearrangements else []
        yield Moved(name, timeline, list(wording.others(timeline)), times)
