# SPDX-License-Identifier: Apache-2.0
"""A whole throughput run: every arm, the rules, the result."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from eval.commands.earlier_runs import end_what_they_left
from eval.commands.keeping import attempt, keep_arm, kept_result
from eval.commands.latency_model import WEIGHTS, write_model
from eval.commands.throughput_arms import ThroughputRun
from eval.commands.throughput_setup import (
    ThroughputArm,
    ThroughputSetup,
    groups_of,
    recorder_of,
    throughput_config,
)
from eval.interrupts import interrupts_raise, interrupts_wait
from eval.judging.throughput_rules import throughput_rules
from eval.load.traffic import Domain
from eval.results.folder import open_run
from eval.results.machine import installed_versions
from eval.results.schema import ArmRun, Result
from eval.results.throughput import ThroughputWorkload


class Asking(NamedTuple):
    """What every arm is asked."""

    domains: Mapping[str, Domain]
    """By their names."""
    skew: float | None
    """Of the random model's router; None: a model was given."""
    completions: int
    """Of each traffic in a round."""
    turn: int
    """Prompts of one domain before the first of the next, where they take turns."""
    repeats: int
    """Rounds that count."""
    most_loss: float
    """See `ThroughputWorkload`."""


def measure(
    setup: ThroughputSetup,
    names: Sequence[ThroughputArm],
    asking: Asking,
    runs: Path,
    name: str,
    console: Console,
) -> tuple[Result, Path]:
    """Measure arms and keep the result, also when it is that they could not be.

    Args:
        setup: What all arms have in common.
        names: Of the arms.
        asking: What they are asked.
        runs: The folder in which this run has its folder.
        name: Of the run.
        console: For what goes on.

    Raises:
        EvaluationError: The folder cannot be used, or arm ``warm`` has nothing to begin by;
            nothing was started.
    """
    config = throughput_config(name, setup, names, runs / name / "arms")
    recorder = recorder_of(setup, names)
    workload = _workload(setup, asking, recorder)
    end_what_they_left(runs, console)
    by_name = {arm.name: arm for arm in config.arms}
    groups = [
        [by_name[one.value] for one in group]
        for group in groups_of(names, setup.servers_at_once, recorder)
    ]
    done: dict[str, ArmRun] = {}
    with (
        interrupts_raise(),
        open_run(runs, config, installed_versions(), fresh=True) as folder,
    ):
        domains = list(asking.domains.values())
        run = ThroughputRun(config, workload, domains, folder, console)

        def measure_all() -> None:
            if setup.shape is not None:
                write_model(setup.shape, setup.model, weights=True, skew=asking.skew)
            # After each group: the next one may fail.
            for arm in run.measure(groups):
                done[arm.name] = arm
                keep_arm(folder, arm)

        ended = attempt(measure_all, lambda: run.doing)
        if setup.shape is not None:
            # Tens of gigabytes, which the same command writes again, byte by byte.
            (setup.model / WEIGHTS).unlink(missing_ok=True)
        arms = [done[arm.name] for arm in config.arms if arm.name in done]
        with interrupts_wait():
            rules = list(throughput_rules(config, workload, arms))
            result = kept_result(
                "throughput", config, folder, arms, rules, ended, throughput=workload
            )
        return result, folder.path


def _workload(
    setup: ThroughputSetup, asking: Asking, recorder: ThroughputArm | None
) -> ThroughputWorkload:
    return ThroughputWorkload(
        shape=setup.shape,
        skew=asking.skew,
        domains=list(asking.domains),
        traffics=list(setup.traffics),
        completions=asking.completions,
        streams=setup.streams,
        turn=asking.turn,
        repeats=asking.repeats,
        ranks=setup.ranks,
        gpus=len(setup.gpus),
        loopback=setup.loopback,
        servers_at_once=setup.servers_at_once,
        recorded_by=recorder.value if recorder else None,
        most_loss=asking.most_loss,
    )
