# SPDX-License-Identifier: Apache-2.0
"""What the rules of the gate look at: one arm with everything that is known of it."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from pydantic import JsonValue

from eval.activity.agreement import Agreement
from eval.activity.scrapes import Scrape
from eval.activity.vllm_log import LogSays
from eval.config.schema import Arm, Config, Eplb, TaskName
from eval.judging.scoring import task_hash
from eval.results.elsewhere import ServedElsewhere
from eval.results.samples import Sample
from eval.results.schema import ArmRun, RuleResult, RuleVerdict


class ArmToJudge(NamedTuple):
    """How an arm was configured, what it did and what it answered."""

    name: str
    eplb: Eplb | None
    plugin: Mapping[str, JsonValue] | None
    """Settings of the plugin; none: nothing is passed."""
    is_stock: bool
    """EPLB of vLLM alone, which writes no events."""
    run: ArmRun
    samples: Sequence[Sample]
    ranks: int
    """Of expert parallelism."""
    agreement: Agreement
    """What the events of all ranks say together, at any time."""
    log: LogSays | None
    """What vLLM's log says, at any time; none: there is no log."""
    scrapes: Sequence[Scrape] = ()
    """What /metrics of a server elsewhere said, from before the first question to after the last
    answer."""

    @property
    def elsewhere(self) -> ServedElsewhere | None:
        """Where it runs; none: the harness started its server."""
        return self.run.elsewhere

    def answers(self, task: TaskName) -> list[Sample]:
        """To one task, in the order of the questions."""
        return sorted(
            (sample for sample in self.samples if sample.task == task),
            key=lambda sample: sample.doc_id,
        )


def without_tasks(arm: ArmToJudge, names: Collection[str]) -> ArmToJudge:
    """The arm as if it had not been asked some tasks."""
    tasks = [task for task in arm.run.tasks if task.name not in names]
    samples = [sample for sample in arm.samples if sample.task not in names]
    return arm._replace(run=arm.run.model_copy(update={"tasks": tasks}), samples=samples)


def is_repeat(arm: ArmToJudge, off: ArmToJudge) -> bool:
    """Whether an arm differs from ``off`` in nothing but its name, or is ``off``."""
    return arm.eplb is None and arm.plugin == off.plugin


def first_questions(arm: ArmToJudge, most: Mapping[TaskName, int | None]) -> ArmToJudge:
    """The arm as if it had been asked no more than so many questions of some tasks."""
    samples = [
        sample
        for sample in arm.samples
        if (limit := most.get(sample.task)) is None or sample.doc_id < limit
    ]
    kept = arm._replace(samples=samples)
    runs = []
    for run in arm.run.tasks:
        if run.name in most:
            asked = kept.answers(run.name)
            changed = {"questions": len(asked), "task_hash": task_hash(asked)}
            run = run.model_copy(update=changed)
        runs.append(run)
    return kept._replace(run=arm.run.model_copy(update={"tasks": runs}))


def arm_to_judge(
    config: Config,
    arm: Arm,
    run: ArmRun,
    samples: Sequence[Sample],
    agreement: Agreement,
    log: LogSays | None,
    scrapes: Sequence[Scrape] = (),
) -> ArmToJudge:
    """An arm of ``config`` that is finished."""
    plugin = config.plugin_settings(arm)
    ranks = config.serve.ranks
    stock = config.is_stock(arm)
    return ArmToJudge(
        arm.name, arm.eplb, plugin, stock, run, samples, ranks, agreement, log, scrapes
    )


def outcome(
    rule: str,
    passed: bool | None,
    saw: str,
    *,
    limit: str,
    detectable: str,
    arm: str | None = None,
    task: str | None = None,
) -> RuleResult:
    """A rule's result; ``passed`` is None where the evidence is missing."""
    verdict: RuleVerdict = "not tested" if passed is None else "passed" if passed else "failed"
    return RuleResult(
        rule=rule, arm=arm, task=task, verdict=verdict, saw=saw, limit=limit, detectable=detectable
    )


def plural(count: int, noun: str) -> str:
    """``1 answer``, ``2 answers``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
