# SPDX-License-Identifier: Apache-2.0
"""Rules of a stress run: those of activity as in an evaluation, and those of load and memory."""

from collections.abc import Iterator

from eval.config.faults import PROMISES, FaultName
from eval.config.gate_section import Gate
from eval.judging.activity_rules import evidence
from eval.judging.arms import ArmToJudge, outcome
from eval.judging.check_rules import maps, weights
from eval.judging.fault_rules import fault_rules
from eval.judging.growth import growth_rule
from eval.judging.soak_rules import same_answers, soak_rules
from eval.results.memory import MemoryUse
from eval.results.schema import ArmRun, RuleResult
from eval.results.stress import StressWorkload
from eval.results.trial import Trial

_GPU_GROWTH_MIB = 64
"""An allocator's segments are of 2 and 20 MiB, and one more or two are no leak; an expert or a map
that stayed behind after each rearrangement would be many more."""
_HOST_GROWTH_MIB = 512
"""Python's heaps, prefix caches and logs of the server fill up while it is asked. On a CPU the
workers' memory grows by hundreds of MiB a minute without any EPLB: there it is only told."""


def stress_rules(gate: Gate, workload: StressWorkload, arm: ArmToJudge) -> Iterator[RuleResult]:
    """Apply every rule to the arm that was kept under load.

    Args:
        gate: Of its configuration.
        workload: What was asked for.
        arm: What became of it.
    """
    run = arm.run
    if workload.fault is not None:
        yield from _with_fault(workload, workload.fault, arm)
        return
    yield _answers(workload, run)
    wanted = gate.model_copy(update={"rearrangements": workload.rearrangements})
    for rule in evidence(wanted, arm):
        # Before weights are replaced, experts are put back, in sync mode.
        if rule.rule != "mode" or not workload.soak:
            yield rule
    if run.memory and any(sample.gpu is not None for sample in run.memory.samples):
        yield from _memory(run.name, run.memory)
    if workload.soak:
        yield from soak_rules(run)


def _with_fault(
    workload: StressWorkload, fault: FaultName, arm: ArmToJudge
) -> Iterator[RuleResult]:
    run = arm.run
    trial = run.trial or Trial()
    if not PROMISES[fault].ends:
        yield _answers(workload, run)
        yield same_answers(run.name, trial.same_answers)
    if trial.fault is not None:
        yield from fault_rules(run.name, fault, trial.fault)
    if fault != "events_disk_full":
        # Which says that nothing is wrong, in what could be written.
        yield weights(arm)
        yield maps(arm)


def _answers(workload: StressWorkload, run: ArmRun) -> RuleResult:
    load = run.load
    asked = (
        f"{load.requests} completions of {load.tokens} tokens in {run.seconds:.0f} s"
        if load
        else "nothing was asked"
    )
    problem = load.problem if load else None
    return outcome(
        "answers",
        False if problem else True if load and load.requests else None,
        f"{asked}, then: {problem}" if problem else asked,
        limit=f"every completion with all its tokens, and never {workload.hang_seconds:g} s "
        "without any",
        detectable="a single request that fails, and a server that hangs",
        arm=run.name,
    )


def _memory(arm: str, memory: MemoryUse) -> Iterator[RuleResult]:
    whose = "" if memory.of_processes else ", of the GPUs, whoever uses them"
    yield growth_rule(arm, "gpu_memory", memory.gpu_growth_mib, _GPU_GROWTH_MIB, "MiB", whose)
    yield growth_rule(arm, "host_memory", memory.host_growth_mib, _HOST_GROWTH_MIB, "MiB")
