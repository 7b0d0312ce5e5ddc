# SPDX-License-Identifier: Apache-2.0
"""Rules of a server that was soaked: it answers as before, and holds no more than before. Pure."""

from collections import Counter
from collections.abc import Iterator

from eval.judging.arms import outcome, plural
from eval.judging.growth import growth_rule
from eval.results.memory import MemoryUse
from eval.results.schema import ArmRun, RuleResult
from eval.results.trial import SameAnswers

_MORE_THREADS = 4
"""A pool that grows by its size once is no leak; one thread for each rearrangement would be."""
_MORE_DESCRIPTORS = 32
"""Connections of requests under way are among them, and these come and go."""
_MORE_SHARED_MIB = 16


def soak_rules(run: ArmRun) -> Iterator[RuleResult]:
    """Apply those that a load without a pause has not."""
    found = SameAnswers() if run.trial is None else run.trial.same_answers
    yield same_answers(run.name, found)
    yield _happened(run)
    memory = run.memory
    if memory is not None:
        yield from _nothing_grows(run.name, memory)


def same_answers(arm: str, found: SameAnswers) -> RuleResult:
    """Judge greedy answers during the load by those before it."""
    example = f": {found.example}" if found.example else ""
    return outcome(
        "same_answers",
        False if found.different else True if found.asked else None,
        f"{found.different} of {plural(found.asked, 'answer')} differ{example}",
        limit="none",
        detectable="a single answer that is another one, of the few questions that are asked",
        arm=arm,
    )


def _happened(run: ArmRun) -> RuleResult:
    trial = run.trial
    happenings = trial.happenings if trial else []
    counted = Counter(one.what for one in happenings)
    told = ", ".join(f"{what} {times} times" for what, times in sorted(counted.items()))
    aborted = trial.aborted if trial else 0
    return outcome(
        "happenings",
        True if counted["rank stopped"] and aborted else None,
        f"{told or 'nothing'}; {plural(aborted, 'completion')} broken off",
        limit="a rank that was stopped, and a completion that was broken off",
        detectable="a soak in which nothing happened",
        arm=run.name,
    )


def _nothing_grows(arm: str, memory: MemoryUse) -> Iterator[RuleResult]:
    yield growth_rule(arm, "threads", memory.thread_growth, _MORE_THREADS, "threads")
    descriptors = memory.descriptor_growth
    yield growth_rule(
        arm, "descriptors", descriptors, _MORE_DESCRIPTORS, "open files and connections"
    )
    shared = memory.shared_growth_mib
    yield growth_rule(arm, "shared_memory", shared, _MORE_SHARED_MIB, "MiB in /dev/shm")
