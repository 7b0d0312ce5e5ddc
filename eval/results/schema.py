# SPDX-License-Identifier: Apache-2.0
"""What an evaluation found: the fields of ``result.json`` (docs/result.md)."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from eval.activity.totals import Activity
from eval.config.schema import Config, TaskName
from eval.results.decision import Decision
from eval.results.digests import FileDigest
from eval.results.earlier import as_of_today
from eval.results.elsewhere import ServedElsewhere
from eval.results.latency import LatencyTimes, LatencyWorkload
from eval.results.memory import MemoryUse
from eval.results.oracle_result import OracleResult
from eval.results.stress import LoadResult, StressWorkload
from eval.results.surroundings import Machine, Seeds, Versions
from eval.results.throughput import Measurement, ThroughputWorkload
from eval.results.trial import Trial

Verdict = Literal["passed", "failed", "not tested", "invalid", "interrupted", "could not run"]

RuleVerdict = Literal["passed", "failed", "not tested"]

SCHEMA_VERSION: Literal[5] = 5
"""Of ``result.json``."""

RunKind = Literal["accuracy", "latency", "stress", "throughput"]
"""Which command made a run: ``run``, or the one of that name."""

EXIT_CODES: dict[Verdict, int] = {
    "passed": 0,
    "failed": 1,
    "not tested": 3,
    "invalid": 2,
    "interrupted": 2,
    "could not run": 2,
}


class TaskRun(BaseModel):
    """What one arm answered to one task."""

    model_config = ConfigDict(allow_inf_nan=False)

    name: TaskName
    """Of the task."""
    scored: bool
    """False: the accuracy says nothing, because the model was not made for the task."""
    questions: int
    """Answered."""
    task_hash: str
    """As lm-eval computes it: equal when documents, prompts and targets are."""
    task_version: float
    """That of lm-eval's task."""
    accuracy: float
    """Filter strict-match."""
    accuracy_stderr: float | None
    """Its standard error."""
    accuracy_flexible: float
    """Filter flexible-extract."""
    accuracy_flexible_stderr: float | None
    """Its standard error."""
    decision: Decision | None = None
    """Why no more was asked, where ``tasks.questions`` is ``enough``; none: all were."""


class TaskResult(TaskRun):
    """The same, beside the other arms."""

    identical_to_off: int
    """Questions whose answer is, as text, that of arm ``off``."""


class ArmRun(Activity):
    """One arm by itself: ``arm.json``. Activity is counted while the questions were asked."""

    model_config = ConfigDict(allow_inf_nan=False)

    run: str = ""
    """Identity of the run, as in ``run.json``; before schema 5 none."""
    name: str
    """Of the arm."""
    tasks: Sequence[TaskRun]
    """In the order in which they were asked."""
    start_seconds: float | None
    """From the start of the process to the first good answer of /health; none: it runs
    elsewhere."""
    asked_from: float
    """The first question was sent, in Unix seconds."""
    asked_until: float
    """The last answer was received."""
    logged_rearrangements: int
    """Rearrangements of which vLLM's own log says that they began, between those times."""
    log_asked: tuple[int, int] | None = None
    """Bytes of the log that were written between them: from, until; before schema 5 none."""
    seconds: float
    """From the first question to the last answer, of each task, added up."""
    tokens_per_second: float | None
    """Generated tokens, over ``seconds``; none: a server elsewhere does not tell."""
    command: list[str]
    """The server's command line; empty: it runs elsewhere."""
    log: str
    """The server's; empty: it runs elsewhere."""
    elsewhere: ServedElsewhere | None = None
    """Where it runs, if the harness did not start it."""
    files: Mapping[str, FileDigest] = {}
    """Answers, events, log and metrics as they were when the arm was finished; before schema 5
    none."""

    @property
    def rearrangements_seen(self) -> int:
        """That finished by the events; without any, that began by vLLM's log."""
        told = self.rearrangements_started or self.ended
        return self.rearrangements if told else self.logged_rearrangements

    latency: LatencyTimes | None = None
    """What a latency run measured; none in others."""
    throughput: Sequence[Measurement] = ()
    """What a throughput run measured; none in others."""
    load: LoadResult | None = None
    """What a stress run asked; none in others."""
    memory: MemoryUse | None = None
    """Of its server in a stress run; none in others."""
    trial: Trial | None = None
    """What happened to its server while it was soaked or a fault was ordered; none in others."""


class ArmResult(ArmRun):
    """One arm beside the others."""

    tasks: Sequence[TaskResult]


class RuleResult(BaseModel):
    """What one rule of the gate found (docs/gates.md has the rules)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rule: str
    """Its name (docs/gates.md)."""
    arm: str | None = None
    """None: about the whole run."""
    task: str | None = None
    """None: about all tasks."""
    verdict: RuleVerdict
    """``not tested``: the evidence is missing."""
    saw: str
    """What it saw."""
    limit: str
    """What it allows."""
    detectable: str
    """What it could have detected."""


class ControlResult(BaseModel):
    """Whether the gate noticed a fault that was put in on purpose."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    """The fault."""
    caught: bool
    """Whether a rule did not pass that does pass without the fault (docs/controls.md)."""
    caught_by: list[str]
    """Rules that did not pass in the control's arm."""
    saw: list[str]
    """What those rules saw."""
    accuracy: float | None
    """Of the first scored task; none: no task is scored."""


class Result(BaseModel):
    """One evaluation."""

    model_config = ConfigDict(populate_by_name=True)

    @model_validator(mode="before")
    @classmethod
    def _of_earlier_schemas(cls, values: Any) -> Any:
        return as_of_today(values) if isinstance(values, dict) else values

    schema_version: Literal[3, 4, 5] = Field(SCHEMA_VERSION, alias="schema")
    """3 and 4 are still read, and nothing ties the files of such a run together. 3 is from before
    outcomes were told: ``rearrangements`` has those that were rejected or changed nothing, too."""
    kind: RunKind = "accuracy"
    """Which command made it: ``accuracy`` is that of `run`; files without it are of the first."""
    run: str = ""
    """Identity of the run, as in ``run.json``; before schema 5 none."""
    name: str
    """Of the run."""
    verdict: Verdict
    """See above."""
    reasons: list[str]
    """Why the verdict is not ``passed``."""
    rules: list[RuleResult] = []
    """Every rule that was applied."""
    controls: list[ControlResult] = []
    """Whether faults that were put in on purpose were noticed."""
    started: datetime
    """Of the first attempt, when the run was resumed."""
    finished: datetime
    """When this result was made."""
    versions: Versions
    """What was installed."""
    plugin_commit: str | None = None
    """Of the checkout that the plugin beside the harness is in, with a + where its files differ
    from that; none: it is in none, or an earlier run."""
    machine: Machine
    """Where it ran."""
    seeds: Seeds | None = None
    """Those of lm-eval; none: nothing was asked that depends on one, as in the other kinds."""
    task_hashes: dict[str, str] = {}
    """Of each task in arm ``off``; the same in every arm unless the verdict is ``invalid``."""
    config: Config
    """The whole configuration, overrides and defaults included (docs/evaluation.md)."""
    config_sha256: str
    """Its digest."""
    oracle: OracleResult | None = None
    """Arm ``off`` against greedy decoding by transformers; none: not done."""
    latency: LatencyWorkload | None = None
    """What a latency run asked."""
    stress: StressWorkload | None = None
    """What a stress run asked."""
    throughput: ThroughputWorkload | None = None
    """What a throughput run asked."""
    left_out: dict[str, str] = {}
    """Tasks that are not scored and that no arm was asked, because their questions could not be
    had, and why; earlier runs have none."""
    arms: list[ArmResult]
    """The finished ones."""
    notes: list[str] = []
    """What limits the verdict besides the rules."""
    files: dict[str, FileDigest] = {}
    """Every file of the run that a verdict comes from, as it was at the end; before schema 5
    none."""
    sha256: str = ""
    """Digest of all other fields of this file; before schema 5 none."""
