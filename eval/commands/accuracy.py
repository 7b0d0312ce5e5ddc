# SPDX-License-Identifier: Apache-2.0
"""A whole evaluation: every arm, the oracle, the verdict."""

import os
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from eval.commands.arms import run_arms
from eval.commands.earlier_runs import end_what_they_left
from eval.commands.foreseen import foreseen
from eval.commands.stopping import told_beforehand
from eval.config.schema import BASELINE, Arm, Config, TaskName
from eval.errors import ConfigError, RunFolderError, in_words, why_it_ended
from eval.interrupts import interrupts_raise, interrupts_wait
from eval.judging.comparison import arm_results
from eval.judging.controls import judge_with_controls
from eval.judging.elsewhere_rules import notes_of_elsewhere
from eval.judging.kept import read_evidence
from eval.judging.verdict import reasons, verdict
from eval.load.questions import SEEDS
from eval.oracle.agreement import compare_with_oracle
from eval.preflight.elsewhere import OF_AN_ARM, look_elsewhere
from eval.preflight.hub import folder_in_cache
from eval.preflight.preparation import Preflight, preflight
from eval.preflight.question_files import Files
from eval.results.folder import RunFolder, open_run
from eval.results.machine import installed_versions, plugin_commit, this_machine
from eval.results.resuming import begun_now, kept_arms
from eval.results.schema import ControlResult, Result, RuleResult, Verdict
from eval.secrets import SECRETS


class Asking(NamedTuple):
    """How arms are served and asked."""

    executable: str
    """The ``vllm`` that serves."""
    files: Mapping[TaskName, Files | None]
    """The questions of each task."""
    servers_at_once: int
    """Started together."""
    key: str | None
    """For servers that run elsewhere."""


class Ended(NamedTuple):
    """Why a run did not get to its end."""

    verdict: Verdict
    reason: str


def run(
    config: Config,
    runs: Path,
    fresh: bool,
    console: Console,
    servers_at_once: int = 1,
    key: str | None = None,
) -> tuple[Result, Path]:
    """Evaluate and keep the result, also when it is that the evaluation could not run.

    Args:
        config: What to do.
        runs: The folder in which this run has its folder.
        fresh: Never resume.
        console: For what goes on.
        servers_at_once: Started together; each is asked while the others have nothing to do.
        key: For servers that run elsewhere.

    Returns:
        The result and the folder of the run.

    Raises:
        EvaluationError: Something is missing, and nothing was started; or nothing can be written.
    """
    if servers_at_once > 1 and config.serve.port is not None:
        raise ConfigError(
            f"--servers-at-once {servers_at_once}: they cannot all listen on serve.port "
            f"{config.serve.port}. Set it to null for free ones"
        )
    end_what_they_left(runs, console)
    ready = preflight(config, console)
    versions = installed_versions(ready.served, served_here=config.starts_servers)
    try:
        snapshot = folder_in_cache(config.model, {**os.environ, **config.serve.environment})
        revision = snapshot.name if snapshot else ""
        now = begun_now(config, versions, ready.left_out, revision)
        kept = set() if fresh else kept_arms(runs / config.name, now)
        unasked = [arm for arm in config.arms if arm.name not in kept]
        ready.findings += look_elsewhere(config, unasked, key, console)
        ready.require_everything()
        _tell_doubts(ready, console)
        with (
            interrupts_raise(),
            open_run(runs, config, versions, fresh, ready.left_out, revision) as folder,
        ):
            asking = Asking(ready.executable, ready.files, servers_at_once, key)
            return _run_in(folder, config, asking, console), folder.path
    except OSError as error:
        # That of an attempt is its result's; here not even that could be written.
        raise RunFolderError(f"no result: {in_words(error, str(runs / config.name))}") from error


def _tell_doubts(ready: Preflight, console: Console) -> None:
    """What servers elsewhere cannot show, before hours go into asking them."""
    for finding in ready.findings:
        if finding.subject.startswith(OF_AN_ARM) and finding.status == "not checked":
            told = f"{finding.subject}: {finding.message}"
            console.print(told, highlight=False, soft_wrap=True)


def _run_in(folder: RunFolder, config: Config, asking: Asking, console: Console) -> Result:
    left_out = folder.state.left_out
    for task, why in left_out.items():
        console.print(f"{task}: left out, it is not scored. {why}", highlight=False, soft_wrap=True)
    asked = config.without_tasks(left_out)
    cannot_pass = (f"this run cannot pass: {why}" for why in foreseen(asked))
    for line in (*cannot_pass, *told_beforehand(asked)):
        console.print(line, highlight=False, soft_wrap=True)
    ended = _attempt(asked, asking, folder, console)
    with interrupts_wait():
        result = _readable_result(config, folder, ended)
        folder.finish(result)
    return result


def _attempt(config: Config, asking: Asking, folder: RunFolder, console: Console) -> Ended | None:
    """Do what is not done yet; None when everything is."""
    doing = ""
    try:
        todo = []
        for arm in config.arms:
            if folder.finished_arm(arm.name):
                console.print(f"arm {arm.name}: finished before, not asked again")
            else:
                todo.append(arm)
        while True:
            if _oracle_is_due(config, folder):
                doing = "oracle"
                _compare_with_oracle(config, folder, console)
            if not todo:
                break
            at_once = asking.servers_at_once
            together, todo = todo[:at_once], todo[at_once:]
            doing = f"arm {', '.join(arm.name for arm in together)}"
            run_arms(config, together, asking.executable, asking.files, folder, console, asking.key)
    except KeyboardInterrupt:
        why = f"interrupted during {doing}; the same command resumes there"
        return Ended("interrupted", why)
    except Exception as error:
        return Ended("could not run", why_it_ended(error, doing, folder.path))
    return None


def _oracle_is_due(config: Config, folder: RunFolder) -> bool:
    wanted = config.oracle.prompts > 0 and folder.oracle() is None
    return wanted and folder.finished_arm(BASELINE) is not None


def _compare_with_oracle(config: Config, folder: RunFolder, console: Console) -> None:
    samples = folder.samples(BASELINE)
    found = compare_with_oracle(config, samples, folder.path / "oracle", console)
    folder.finish_oracle(found)
    console.print(
        f"oracle: {found.identical} of {found.prompts} answers as by transformers in float32, "
        f"{found.seconds:.1f} s"
    )


def _readable_result(config: Config, folder: RunFolder, ended: Ended | None) -> Result:
    """The result; where what was kept cannot be judged, one that says so, without any arm."""
    try:
        return _result(config, folder, ended, config.arms)
    except Exception as error:
        why = why_it_ended(error, "the verdict", folder.path)
        reason = f"{ended.reason}\n{why}" if ended else why
        return _result(config, folder, Ended("could not run", reason), [])


def _result(
    config: Config, folder: RunFolder, ended: Ended | None, of_arms: Sequence[Arm]
) -> Result:
    """The result, without secrets.

    Args:
        config: What was to be done.
        folder: What is kept.
        ended: Tells of a run that did not get to its end, which is not judged.
        of_arms: Those that are told of, if they are finished.
    """
    asked = config.without_tasks(folder.state.left_out)
    rules: list[RuleResult] = []
    controls: list[ControlResult] = []
    notes: list[str] = []
    if not ended:
        found = read_evidence(folder, asked)
        rules, controls = judge_with_controls(asked, found.arms, found.oracle)
        runs = [arm.run for arm in found.arms]
        samples = {arm.name: arm.samples for arm in found.arms}
        oracle = found.oracle
        notes = list(notes_of_elsewhere(found.arms, rules))
    else:
        runs = [run for arm in of_arms if (run := folder.finished_arm(arm.name))]
        samples = {run.name: folder.samples(run.name) for run in runs}
        oracle = folder.oracle() if of_arms else None
    arms = arm_results(runs, samples)
    result = Result(
        name=config.name,
        verdict=ended.verdict if ended else verdict(rules),
        reasons=[ended.reason] if ended else reasons(rules),
        rules=rules,
        controls=controls,
        started=folder.state.started,
        finished=datetime.now(timezone.utc),
        versions=folder.state.versions,
        plugin_commit=plugin_commit(),
        machine=this_machine(),
        seeds=SEEDS,
        task_hashes={task.name: task.task_hash for arm in arms[:1] for task in arm.tasks},
        config=config,
        config_sha256=config.sha256(),
        oracle=oracle,
        left_out={**folder.state.left_out},
        arms=arms,
        notes=notes,
    )
    return SECRETS.hide_in_model(result)
