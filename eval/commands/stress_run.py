# SPDX-License-Identifier: Apache-2.0
"""A whole stress run: one arm under load, the rules, the result."""

from pathlib import Path

from rich.console import Console

from eval.commands.earlier_runs import end_what_they_left
from eval.commands.harm import with_fault
from eval.commands.keeping import attempt, keep_arm, kept_result
from eval.commands.stress_arm import load_arm
from eval.config.schema import Arm, Config
from eval.errors import ConfigError
from eval.interrupts import interrupts_raise, interrupts_wait
from eval.judging.kept_arm import with_activity
from eval.judging.stress_rules import stress_rules
from eval.preflight.preparation import preflight
from eval.results.folder import open_run
from eval.results.machine import installed_versions
from eval.results.schema import ArmRun, Result
from eval.results.stress import StressWorkload


def stress(
    config: Config, name: str, workload: StressWorkload, runs: Path, console: Console
) -> tuple[Result, Path]:
    """Keep one arm under load and the result, also when it is that it could not run.

    Args:
        config: Whose arm it is.
        name: Of the arm.
        workload: How it is kept busy.
        runs: The folder in which this run has its folder.
        console: For what goes on.

    Raises:
        EvaluationError: Something is missing; nothing was started.
    """
    _require_started_here(next(arm for arm in config.arms if arm.name == name))
    end_what_they_left(runs, console)
    # The load is made up.
    ready = preflight(config, console, questions=False)
    ready.require_everything()
    arm = next(arm for arm in config.arms if arm.name == name)
    if workload.fault is not None:
        arm = with_fault(config, arm, workload.fault, workload.fault_seconds)
        arms = [arm if one.name == name else one for one in config.arms]
        config = config.model_copy(update={"arms": arms})
    on_gpus = ready.installation is None or not ready.installation.on_cpu
    versions = installed_versions(ready.served)
    done: list[ArmRun] = []
    with interrupts_raise(), open_run(runs, config, versions, fresh=True) as folder:

        def load() -> None:
            done.append(load_arm(config, arm, workload, ready.executable, on_gpus, folder, console))
            keep_arm(folder, done[0])

        ended = attempt(load, lambda: f"arm {name}")
        with interrupts_wait():
            judged = [with_activity(folder.arm_folder(name), config, arm, one, ()) for one in done]
            rules = [rule for one in judged for rule in stress_rules(config.gate, workload, one)]
            result = kept_result("stress", config, folder, done, rules, ended, stress=workload)
        return result, folder.path


def _require_started_here(arm: Arm) -> None:
    """Refuse a server elsewhere, whose processes and memory nobody here can see or stop.

    Raises:
        ConfigError: It is one.
    """
    if arm.url is not None:
        raise ConfigError(
            f"--arm {arm.name} runs elsewhere, at {arm.url}: stress starts, measures and stops its "
            "server. Name an arm without a url"
        )
