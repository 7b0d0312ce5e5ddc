# SPDX-License-Identifier: Apache-2.0
"""A whole latency run: every arm, the rules, the result."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from eval.commands.earlier_runs import end_what_they_left
from eval.commands.keeping import attempt, keep_arm, kept_result
from eval.commands.latency_arms import measure_arms
from eval.commands.latency_model import write_model
from eval.commands.latency_setup import CHECKED, ArmName, Checks, Setup, latency_config
from eval.interrupts import interrupts_raise, interrupts_wait
from eval.judging.latency_rules import latency_rules
from eval.results.folder import open_run
from eval.results.latency import LatencyWorkload
from eval.results.machine import installed_versions
from eval.results.schema import ArmRun, Result


def measure(
    setup: Setup,
    names: Sequence[ArmName],
    most_p99: float | None,
    runs: Path,
    name: str,
    console: Console,
) -> tuple[Result, Path]:
    """Measure arms and keep the result, also when it is that they could not be.

    Args:
        setup: What all arms have in common.
        names: Of the arms; those with checks come after all of them.
        most_p99: See `LatencyWorkload`.
        runs: The folder in which this run has its folder.
        name: Of the run.
        console: For what goes on.

    Raises:
        EvaluationError: The folder cannot be used; nothing was started.
    """
    config = latency_config(name, setup, names, runs / name / "arms")
    switching = setup.switching
    workload = LatencyWorkload(
        shape=setup.shape,
        streams=setup.streams,
        tokens=setup.tokens,
        loopback=setup.loopback,
        gpus=len(setup.gpus),
        servers_at_once=setup.servers_at_once,
        load="switching" if switching else "steady",
        completions=switching.completions if switching else None,
        turn=switching.turn if switching else None,
        most_seconds=switching.most_seconds if switching else None,
        ranks=setup.ranks,
        most_p99=most_p99,
    )
    end_what_they_left(runs, console)
    by_name = {arm.name: arm for arm in config.arms}
    timed = [] if setup.checks is Checks.only else [one.value for one in names]
    checked = [name for name in by_name if name.endswith(CHECKED)]
    arms = [by_name[name] for name in (*timed, *checked)]
    done: list[ArmRun] = []
    with (
        interrupts_raise(),
        open_run(runs, config, installed_versions(), fresh=True) as folder,
    ):

        def measure_all() -> None:
            write_model(setup.shape, setup.model, weights=switching is not None)
            # After each: the next one may fail.
            for arm in measure_arms(config, arms, workload, folder, console):
                done.append(arm)
                keep_arm(folder, arm)

        def doing() -> str:
            return f"arm {arms[min(len(done), len(arms) - 1)].name}"

        ended = attempt(measure_all, doing)
        with interrupts_wait():
            rules = list(latency_rules(config, workload, done))
            result = kept_result("latency", config, folder, done, rules, ended, latency=workload)
        return result, folder.path
