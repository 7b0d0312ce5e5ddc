# SPDX-License-Identifier: Apache-2.0
"""What all reports show: every number and text of a run, computed once (`eval.report.viewing`).

Terminal, Markdown, HTML and JUnit only decide how it looks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from eval.activity.timeline import Timeline
from eval.judging.comparison import Accuracy, PairedAnswers
from eval.results.schema import ControlResult, RuleResult, RuleVerdict, Verdict
from eval.results.surroundings import Versions


@dataclass(frozen=True)
class ArmAccuracy:
    """One arm in one scored task."""

    run: str
    arm: str
    task: str
    fewshot: int
    """Solved questions before each question."""
    share: Accuracy
    flexible: float
    """The share of right answers by the filter flexible-extract."""


def asked_unlike(accuracies: Sequence[ArmAccuracy]) -> bool:
    """Say whether arms were asked different numbers of questions of a task, as by ``enough``."""
    asked = {(one.task, one.share.questions) for one in accuracies}
    return len(asked) > len({task for task, _ in asked})


@dataclass(frozen=True)
class ArmPairs:
    """One arm's answers to one task beside those of arm ``off`` of its run."""

    run: str
    arm: str
    scored: bool
    answers: PairedAnswers


@dataclass(frozen=True)
class ArmCounts:
    """What shows that an arm did what it is there for."""

    arm: str
    rows: Mapping[str, str]
    """By what they are called, in the same order for every arm."""


@dataclass(frozen=True)
class PolicyRow:
    """What a policy moved in one arm, and what it was good for."""

    run: str
    arm: str
    model: str
    """Empty where the arm has but one."""
    cells: Mapping[str, str]
    """By what they are called, in the same order for every row."""


class RuleGroup(NamedTuple):
    """The rules about one arm, or about the run."""

    about: str
    rules: list[RuleResult]
    """What failed first, then what was not tested, else in the order of the rules."""

    @property
    def verdict(self) -> RuleVerdict:
        """The worst."""
        return self.rules[0].verdict

    @property
    def passed(self) -> list[RuleResult]:
        """Those that did."""
        return [rule for rule in self.rules if rule.verdict == "passed"]

    @property
    def broken(self) -> list[RuleResult]:
        """Those that did not."""
        return [rule for rule in self.rules if rule.verdict != "passed"]


@dataclass(frozen=True)
class Moved:
    """What happened to one model's experts in one arm."""

    model: str
    timeline: Timeline
    others: Sequence[str]
    """Rearrangements that did not finish, and why."""
    times: Sequence[tuple[str, str]]
    """How long rearrangements took and what they moved: names and figures."""


@dataclass(frozen=True)
class ArmMoved:
    """One arm whose experts moved."""

    run: str
    arm: str
    models: Sequence[Moved]


@dataclass(frozen=True)
class Repeat:
    """How to make a run again."""

    command: str
    saved: str | None
    """The configuration to save first; none: it is one of this repository."""
    configuration: str
    servers: Sequence[tuple[str, str]]
    """Each arm and the command line of its server."""


@dataclass(frozen=True)
class RunView:
    """One result."""

    label: str
    """Tells it from the other runs of a report."""
    name: str
    verdict: Verdict
    reasons: Sequence[str]
    rules: Sequence[RuleResult]
    controls: Sequence[ControlResult]
    left_out: Mapping[str, str]
    """Tasks that were not asked, and why."""
    notes: Sequence[str]
    """What limits the verdict besides the rules."""
    started: datetime
    finished: datetime
    seconds: float
    """That all servers took to start and to answer."""
    versions: Versions
    served: str
    """By what, and on what, in a sentence."""
    speed: str
    """How fast, in sentences; empty: nothing tells."""
    accuracies: Sequence[ArmAccuracy]
    counts: Sequence[ArmCounts]
    """Of all arms but those of negative controls."""
    policies: Sequence[PolicyRow]
    """Of the same, where events tell what plans moved."""


@dataclass(frozen=True)
class KeptRunView(RunView):
    """One result with what its run left in its folder; texts without folders of its machine."""

    groups: Sequence[RuleGroup]
    pairs: Sequence[ArmPairs]
    moved: Sequence[ArmMoved]
    repeat: Repeat

    @property
    def arms(self) -> list[str]:
        """Their names; ``off`` is the first."""
        return [one.arm for one in self.counts]


@dataclass(frozen=True)
class ReportView:
    """One run, or several of the same model and tasks."""

    runs: Sequence[KeptRunView]
    verdict: Verdict
    """The worst."""
    meaning: str
    """The verdict in a sentence."""
    model: str
    subject: str
    """What was asked of which model in which arms."""
    reasons: Sequence[str]
    notes: Sequence[str]
    """Those of all runs, and what was left out."""
    facts: Sequence[tuple[str, str, str]]
    """The figures that matter most: what, how many, of how many."""
    environment: Sequence[tuple[str, Sequence[str]]]
    """Names, and a value for each run."""

    @property
    def served(self) -> list[str]:
        """By what, and on what, the runs' models were served: a sentence for each way."""
        return list(dict.fromkeys(run.served for run in self.runs))

    @property
    def speeds(self) -> list[str]:
        """How fast each run's arms answered."""
        return [run.speed for run in self.runs if run.speed]

    @property
    def accuracies(self) -> list[ArmAccuracy]:
        """Of all runs."""
        return [one for run in self.runs for one in run.accuracies]

    @property
    def pairs(self) -> list[ArmPairs]:
        """Of all runs."""
        return [one for run in self.runs for one in run.pairs]

    @property
    def policies(self) -> list[PolicyRow]:
        """Of all runs."""
        return [one for run in self.runs for one in run.policies]

    @property
    def moved(self) -> list[ArmMoved]:
        """Of all runs."""
        return [one for run in self.runs for one in run.moved]
