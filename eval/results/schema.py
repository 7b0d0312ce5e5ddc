# SPDX-License-Identifier: Apache-2.0
"""What an evaluation found: the fields of ``result.json`` (docs/result.md)."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from eval.activity.counts import Activity
from eval.config.schema import Config, TaskName
from eval.results.earlier import as_of_today
from eval.results.latency import LatencyTimes, LatencyWorkload
from eval.results.memory import MemoryUse
from eval.results.stress import LoadResult, StressWorkload

Verdict = Literal["passed", "failed", "not tested", "invalid", "interrupted", "could not run"]

RuleVerdict = Literal["passed", "failed", "not tested"]

RunKind = Literal["accuracy", "latency", "stress"]
"""Which command made a run: ``run``, ``latency`` or ``stress``."""

EXIT_CODES: dict[Verdict, int] = {
    "passed": 0,
    "failed": 1,
    "not tested": 1,
    "invalid": 2,
    "interrupted": 2,
    "could not run": 2,
}


class Versions(BaseModel):
    """Installed releases; none: not installed beside the harness."""

    python: str
    vllm_distribution: str | None
    """vLLM is distributed under several names."""
    vllm: str | None
    vllm_eplb_plugin: str | None
    lm_eval: str | None
    torch: str | None
    transformers: str | None


class Machine(BaseModel):
    """Where the servers ran."""

    processor: str
    accelerators: list[str]
    """One name for each GPU; empty: a CPU run."""
    cores: int
    """Processor cores that this process may use."""
    memory_gib: float


class Seeds(BaseModel):
    """Every seed that is set; answers are greedy, so only ``fewshot`` changes a prompt."""

    random: int
    numpy: int
    torch: int
    fewshot: int
    request: int


class OracleResult(BaseModel):
    """How many answers of arm ``off`` equal greedy decoding by transformers in float32."""

    prompts: int
    identical: int
    different: list[int]
    """Questions (``doc_id``) whose answers differ."""
    seconds: float


class TaskRun(BaseModel):
    """What one arm answered to one task."""

    name: TaskName
    scored: bool
    """False: the accuracy says nothing, because the model was not made for the task."""
    questions: int
    """Answered."""
    task_hash: str
    """As lm-eval computes it: equal when documents, prompts and targets are."""
    task_version: float
    accuracy: float
    """Filter strict-match."""
    accuracy_stderr: float | None
    accuracy_flexible: float
    """Filter flexible-extract."""
    accuracy_flexible_stderr: float | None


class TaskResult(TaskRun):
    """The same, beside the other arms."""

    identical_to_off: int
    """Questions whose answer is, as text, that of arm ``off``."""


class ArmRun(Activity):
    """One arm by itself: ``arm.json``. Activity is counted while the questions were asked."""

    name: str
    tasks: Sequence[TaskRun]
    """In the order in which they were asked."""
    start_seconds: float
    """From the start of the process to the first good answer of /health."""
    asked_from: float
    """The first question was sent, in Unix seconds."""
    asked_until: float
    """The last answer was received."""
    logged_rearrangements: int
    """Rearrangements of which vLLM's own log says that they began, between those times."""
    seconds: float
    """From the first question to the last answer, of each task, added up."""
    tokens_per_second: float
    """Generated tokens, over ``seconds``."""
    command: list[str]
    log: str
    """The server's."""
    latency: LatencyTimes | None = None
    """Of a latency run."""
    load: LoadResult | None = None
    """Of a stress run, as ``memory``."""
    memory: MemoryUse | None = None


class ArmResult(ArmRun):
    """One arm beside the others."""

    tasks: Sequence[TaskResult]


class RuleResult(BaseModel):
    """What one rule of the gate found (docs/gates.md has the rules)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rule: str
    arm: str | None = None
    """None: about the whole run."""
    task: str | None = None
    verdict: RuleVerdict
    saw: str
    limit: str
    """What it allows."""
    detectable: str
    """What it could have detected."""


class ControlResult(BaseModel):
    """Whether the gate noticed a fault that was put in on purpose."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    caught: bool
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

    schema_version: Literal[3, 4] = Field(4, alias="schema")
    """3: from before outcomes were told, and still read; there ``rearrangements`` has those that
    were rejected or changed nothing, too."""
    kind: RunKind = "accuracy"
    name: str
    verdict: Verdict
    reasons: list[str]
    """Why the verdict is not ``passed``."""
    rules: list[RuleResult] = []
    """Every rule that was applied."""
    controls: list[ControlResult] = []
    started: datetime
    """Of the first attempt, when the run was resumed."""
    finished: datetime
    versions: Versions
    machine: Machine
    seeds: Seeds | None = None
    """None: nothing was asked that depends on one, as in the other kinds of runs."""
    task_hashes: dict[str, str] = {}
    """Of each task in arm ``off``; the same in every arm unless the verdict is ``invalid``."""
    config: Config
    config_sha256: str
    oracle: OracleResult | None = None
    latency: LatencyWorkload | None = None
    """What a latency run asked."""
    stress: StressWorkload | None = None
    """What a stress run asked."""
    left_out: dict[str, str] = {}
    """Tasks that are not scored and that no arm was asked, because their questions could not be
    had, and why; earlier runs have none."""
    arms: list[ArmResult]
    """The finished ones."""
