# SPDX-License-Identifier: Apache-2.0
"""The figures of a stress run, as every report shows them."""

from collections import Counter
from collections.abc import Iterator

from eval.results.memory import MemoryUse
from eval.results.schema import ArmRun
from eval.results.trial import Trial


def load_rows(arm: ArmRun) -> Iterator[tuple[str, str]]:
    """What an arm was asked under load, what moved meanwhile, and how its memory grew."""
    if arm.load is not None:
        yield "completions", f"{arm.load.requests} of {arm.load.tokens} tokens"
    yield "seconds under load", f"{arm.seconds:.1f}"
    yield "tokens per second", f"{arm.tokens_per_second or 0:.0f}"
    yield "rearrangements finished", str(arm.rearrangements)
    yield "rearrangements begun, by vLLM's log", str(arm.logged_rearrangements)
    yield "other outcomes", arm.other_outcomes() or "0"
    yield "slots checked, wrong", f"{arm.weight_checks}, {arm.weight_mismatches}"
    yield "maps checked, wrong", f"{arm.map_checks}, {arm.map_mismatches}"
    if arm.memory is not None:
        yield from _memory(arm.memory)
    if arm.trial is not None:
        yield from _trial(arm.trial)


def _memory(memory: MemoryUse) -> Iterator[tuple[str, str]]:
    whose = "" if memory.of_processes else ", of the GPUs, whoever uses them"
    if any(sample.gpu is not None for sample in memory.samples):
        yield f"GPU memory{whose}", _growth(memory.gpu_growth_mib)
    yield "host memory", _growth(memory.host_growth_mib)
    for heading, growth in (
        ("threads", memory.thread_growth),
        ("open files and connections", memory.descriptor_growth),
        ("MiB in /dev/shm", memory.shared_growth_mib),
    ):
        if growth is not None:
            yield heading, f"{growth:+.0f}"


def _trial(trial: Trial) -> Iterator[tuple[str, str]]:
    same = trial.same_answers
    yield "same questions, other answers", f"{same.asked}, {same.different}"
    if trial.happenings:
        counted = Counter(one.what for one in trial.happenings)
        yield "happenings", ", ".join(f"{what}: {number}" for what, number in counted.items())
        yield "completions broken off", str(trial.aborted)
    if (seen := trial.fault) is not None:
        yield "fault", f"{seen.fault} on EP rank {seen.rank}"
        if seen.noticed is not None and seen.struck is not None:
            yield "noticed", f"after {seen.noticed - seen.struck:.1f} s: {seen.said}"


def _growth(mebibytes: float | None) -> str:
    return "too few samples" if mebibytes is None else f"{mebibytes:+.0f} MiB"
