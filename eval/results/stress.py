# SPDX-License-Identifier: Apache-2.0
"""What a stress run found, and how it is judged and written."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict
from rich.table import Table
from rich.text import Text

from eval.activity.counts import Activity
from eval.results.memory import MemorySample, growth_mib
from eval.results.schema import Machine, Versions

_GPU_GROWTH_MIB = 64
"""An allocator's segments are of 2 and 20 MiB, and one more or two are no leak; an expert or a map
that stayed behind after each rearrangement would be many more."""
_HOST_GROWTH_MIB = 512
"""Python's heaps, prefix caches and logs of the server fill up while it is asked. On a CPU the
workers' memory grows by hundreds of MiB a minute without any EPLB: there it is only told."""
_MOST_SAMPLES = 300


class StressRule(BaseModel):
    """One thing that had to hold."""

    model_config = ConfigDict(frozen=True)

    rule: str
    passed: bool
    saw: str


class StressResult(BaseModel):
    """One run."""

    schema_version: Literal[2, 3] = 3
    """2: from before outcomes were told, and still read."""
    name: str
    arm: str
    started: datetime
    seconds: float
    """For which it was asked."""
    streams: int
    requests: int
    tokens: int
    problem: str | None
    """Why it ended before its time."""
    evidence: Activity
    ranks: int
    """Of expert parallelism."""
    logged_rearrangements: int
    """That vLLM's log tells of; all there is to know when the plugin is off."""
    memory: list[MemorySample]
    memory_of_processes: bool
    """False: the GPU memory is that of the GPUs, whoever uses it."""
    gpu_growth_mib: float | None
    host_growth_mib: float | None
    rules: list[StressRule] = []
    machine: Machine
    versions: Versions
    config_sha256: str
    command: list[str]

    @property
    def passed(self) -> bool:
        """Whether every rule did."""
        return all(rule.passed for rule in self.rules)

    def write(self, file: Path) -> None:
        """Everything, as JSON."""
        file.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")

    def table(self) -> Table:
        """One row a rule."""
        table = Table("", "", "", show_header=False)
        for rule in self.rules:
            verdict = Text("passed", "green") if rule.passed else Text("failed", "red")
            table.add_row(rule.rule, verdict, rule.saw)
        if self.host_growth_mib is not None:
            table.add_row("host memory", "", f"{self.host_growth_mib:+.0f} MiB")
        return table


def thinned(samples: list[MemorySample]) -> list[MemorySample]:
    """At most so many that a file stays short, evenly."""
    return samples[:: -(-len(samples) // _MOST_SAMPLES) or 1]


def growths(samples: list[MemorySample]) -> tuple[float | None, float | None]:
    """Of the GPU's memory and the host's, in MiB."""
    gpu = [sample.gpu for sample in samples if sample.gpu is not None]
    return growth_mib(gpu), growth_mib([sample.host for sample in samples])


def judge(
    result: StressResult,
    plugin: bool,
    checked: bool,
    least_rearrangements: int,
    hang_seconds: float,
) -> Iterator[StressRule]:
    """What has to hold.

    Args:
        result: Without its rules.
        plugin: Whether the arm has the plugin, and so events.
        checked: Whether it has the setting ``check_weights``.
        least_rearrangements: That have to have finished.
        hang_seconds: For which one may have been under way at the end.
    """
    evidence = result.evidence
    asked = f"{result.requests} completions of {result.tokens} tokens in {result.seconds:.0f} s"
    yield StressRule(
        rule="answers",
        passed=result.problem is None and result.requests > 0,
        saw=asked if result.problem is None else f"{asked}, then: {result.problem}",
    )
    others = evidence.other_outcomes()
    finished = evidence.rearrangements if plugin else result.logged_rearrangements
    yield StressRule(
        rule="rearrangements",
        passed=finished >= least_rearrangements,
        saw=f"{finished}, at least {least_rearrangements} were wanted{others and f'; {others}'}",
    )
    if plugin:
        under_way = evidence.under_way_seconds or 0.0
        yield StressRule(
            rule="no_stall",
            passed=under_way <= hang_seconds,
            saw=f"the last was under way for {under_way:.1f} s",
        )
        yield StressRule(
            rule="no_failed_rearrangements",
            passed=not evidence.failed,
            saw="; ".join([f"{evidence.failed} failed", *evidence.failures]),
        )
        yield StressRule(
            rule="no_rejected_placements",
            passed=not evidence.placements_rejected,
            saw=f"{evidence.placements_rejected} rejected",
        )
    if checked:
        for rule, checks, wrong in (
            ("weights", evidence.weight_checks, evidence.weight_mismatches),
            ("maps", evidence.map_checks, evidence.map_mismatches),
        ):
            saw = f"{wrong} of {checks} wrong"
            yield StressRule(rule=rule, passed=checks > 0 and not wrong, saw=saw)
        checking = evidence.checking_ranks
        yield StressRule(
            rule="every_rank_checked",
            passed=checking == list(range(result.ranks)),
            saw=f"ranks {checking} of {result.ranks} compared weights after a commit",
        )
    if any(sample.gpu is not None for sample in result.memory):
        whose = "" if result.memory_of_processes else ", of the GPUs, whoever uses them"
        yield _growth("gpu_memory", result.gpu_growth_mib, _GPU_GROWTH_MIB, whose)
        yield _growth("host_memory", result.host_growth_mib, _HOST_GROWTH_MIB)


def _growth(rule: str, growth: float | None, most: int, whose: str = "") -> StressRule:
    if growth is None:
        return StressRule(rule=rule, passed=False, saw="too few samples: let it run longer")
    saw = f"{growth:+.0f} MiB from the second fifth of the time to the last, at most {most}{whose}"
    return StressRule(rule=rule, passed=growth <= most, saw=saw)
