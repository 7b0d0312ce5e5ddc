# SPDX-License-Identifier: Apache-2.0
"""A made-up run that is judged."""

from collections.abc import Sequence
from typing import Any

from eval.activity.agreement import Agreement
from eval.activity.vllm_log import LogSays
from eval.config.schema import Config
from eval.judging.arms import ArmToJudge, arm_to_judge
from eval.judging.recorded import RecordedAccuracy
from eval.judging.verdict import judge_run
from eval.results.oracle_result import OracleResult
from eval.results.samples import Sample
from eval.results.schema import RuleResult
from tests.builders.arms import arm, sample, samples, task_run
from tests.builders.harness import gsm8k_task, small_config


def gate(**changes: Any) -> dict[str, Any]:
    """The gate of `small_config` with changes."""
    return {**small_config()["gate"], **changes}


class Run:
    """A run in which all is well, and what differs from that."""

    def __init__(self, **config: Any) -> None:
        self.config = Config.model_validate(small_config(**config))
        self.runs = {one.name: arm(one.name) for one in self.config.arms}
        self.answers: dict[str, Sequence[Sample]] = {name: samples() for name in self.runs}
        self.agreements = {
            one.name: Agreement(6, True) if one.eplb else Agreement() for one in self.config.arms
        }
        self.logs = {
            one.name: LogSays(True, 6 if one.eplb else 0, one.eplb is not None)
            for one in self.config.arms
        }
        self.found: OracleResult | None = None
        self.recorded: dict[Any, RecordedAccuracy | None] = {}

    def change(self, name: str, **changes: Any) -> "Run":
        self.runs[name] = self.runs[name].model_copy(update=changes)
        return self

    def arms(self) -> list[ArmToJudge]:
        return [
            arm_to_judge(
                self.config,
                one,
                self.runs[one.name],
                self.answers[one.name],
                self.agreements[one.name],
                self.logs.get(one.name),
            )
            for one in self.config.arms
        ]

    def rules(self) -> list[RuleResult]:
        return judge_run(self.config, self.arms(), self.found, self.recorded)

    def only(self, rule: str, arm: str | None = None) -> RuleResult:
        """The one result of a rule in one arm."""
        [result] = [one for one in self.rules() if (one.rule, one.arm) == (rule, arm)]
        return result

    def bad(self) -> list[tuple[str, str | None, str]]:
        """Rule, arm and verdict of what did not pass."""
        return [(one.rule, one.arm, one.verdict) for one in self.rules() if one.verdict != "passed"]


def scored(right: int, lost: int = 0, won: int = 0, wrong: int = 0) -> tuple[list[Sample], ...]:
    """Answers of two arms: ``right`` and ``wrong`` in both, ``lost`` and ``won`` in the second."""
    flags = [(True, True)] * right + [(True, False)] * lost
    flags += [(False, True)] * won + [(False, False)] * wrong
    return tuple(
        [sample(number, f"{pair[which]}", correct=pair[which]) for number, pair in enumerate(flags)]
        for which in (0, 1)
    )


def paired(answers: tuple[list[Sample], ...], **changes: Any) -> Run:
    """Arm sync beside arm off in low precision."""
    questions = len(answers[0])
    config = {
        "tasks": [gsm8k_task(questions=questions)],
        "gate": gate(identical=False, noise_floor=False, margin_points=3),
        "arms": small_config()["arms"][:2],
        **changes,
    }
    run = Run(**config)
    for name, answered in zip(("off", "sync"), answers, strict=True):
        run.answers[name] = answered
        run.change(name, tasks=[arm(name, tasks=[task_run(questions=questions)]).tasks[0]])
    return run
