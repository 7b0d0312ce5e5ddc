# SPDX-License-Identifier: Apache-2.0
"""Everything that an evaluation needs, looked at before anything long starts."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.table import Table
from rich.text import Text

from eval.config.schema import Config, TaskName
from eval.errors import EvaluationError, PreflightError
from eval.preflight.all2all import problem_of_backend
from eval.preflight.fitness import Finding, judge_installation
from eval.preflight.hub import find_on_hub, folder_in_cache
from eval.preflight.installation import Installation, examine, find_doctor
from eval.preflight.model_files import check_model, is_folder
from eval.preflight.question_files import Files
from eval.preflight.questions import look_for_questions
from eval.serving.command import find_executable
from eval.serving.server import choose_port

_Found = TypeVar("_Found")


@dataclass
class Preflight:
    """What was looked at, and what a run then starts with."""

    findings: list[Finding] = field(default_factory=list)
    executable: str = ""
    """The ``vllm`` that serves."""
    files: dict[TaskName, Files | None] = field(default_factory=dict)
    """The questions of each task."""
    left_out: dict[TaskName, str] = field(default_factory=dict)
    """Tasks that are not scored and whose questions cannot be had, and why."""
    installation: Installation | None = None
    """What is installed where the server runs; none: nobody could be asked."""

    @property
    def missing(self) -> list[Finding]:
        """What keeps the evaluation from running."""
        return [finding for finding in self.findings if finding.status == "missing"]

    @property
    def served(self) -> str | None:
        """Release and distribution of the server's vLLM."""
        return self.installation.installed if self.installation else None

    def require_everything(self) -> None:
        """Refuse to go on with anything missing.

        Raises:
            PreflightError: Has all of it.
        """
        if self.missing:
            lines = "\n".join(f"- {one.subject}: {one.message}" for one in self.missing)
            raise PreflightError(f"this evaluation cannot run:\n{lines}")


def preflight(config: Config, console: Console, questions: bool = True) -> Preflight:
    """Look at server, GPUs, DeepEP, model, questions and port; nothing is started or written.

    Where every arm's server runs elsewhere, only at the model, if the oracle needs it, and at
    questions. At those servers looks `eval.preflight.elsewhere`.

    Args:
        config: Of which everything has to be there.
        console: Shows that something is going on.
        questions: False: none will be asked.
    """
    done = Preflight()
    if config.starts_servers:
        _look_at_server(config, done, console)
    if config.starts_servers or config.oracle.prompts:
        _look(done, "model", lambda: _find_model(config), str)
    if questions:
        looked = look_for_questions(config.tasks)
        done.files, done.left_out = looked.files, looked.left_out
        done.findings += looked.findings
    port = config.serve.port
    if config.starts_servers:
        _look(done, "port", lambda: choose_port(port), lambda _: str(port or "a free one"))
    return done


def _look_at_server(config: Config, done: Preflight, console: Console) -> None:
    done.executable = (
        _look(done, "server", lambda: find_executable(config.serve.executable), str) or ""
    )
    if done.executable:
        with console.status(
            "looking at the server's environment: vllm-eplb doctor imports its vLLM"
        ):
            done.findings += _look_at_environment(config, done)
    done.findings += _look_at_backend(config)


def findings_table(findings: list[Finding]) -> Table:
    """One row a finding."""
    colours = {"found": "green", "missing": "red", "left out": "yellow", "not checked": "yellow"}
    table = Table("", "", "", show_header=False)
    for finding in findings:
        status = Text(finding.status, colours[finding.status])
        table.add_row(finding.subject, status, finding.message)
    return table


def _look(
    done: Preflight, subject: str, find: Callable[[], _Found], describe: Callable[[_Found], str]
) -> _Found | None:
    try:
        found = find()
    except EvaluationError as error:
        done.findings.append(Finding(subject, "missing", str(error)))
        return None
    done.findings.append(Finding(subject, "found", describe(found)))
    return found


def _find_model(config: Config) -> str:
    if is_folder(config.model):
        check_model(config.model)
        return config.model
    return find_on_hub(config.model, {**os.environ, **config.serve.environment})


def _look_at_environment(config: Config, done: Preflight) -> Iterator[Finding]:
    executable = done.executable
    doctor = find_doctor(executable)
    if doctor is None:
        wanted = config.plugin is not None
        yield Finding(
            "plugin",
            "missing" if wanted else "not checked",
            f"there is no vllm-eplb beside {executable}: the plugin is not installed there, and "
            "its settings would be ignored without a word. Install it: pip install . in a "
            "checkout, with that environment's pip"
            if wanted
            else f"there is no vllm-eplb beside {executable} to ask for its GPUs",
        )
        return
    try:
        here = [arm for arm in config.arms if arm.url is None]
        settings = [one for arm in here if (one := config.plugin_settings(arm)) is not None]
        done.installation = examine(doctor, config.serve.environment, settings)
    except EvaluationError as error:
        yield Finding("plugin", "missing", str(error))
        return
    yield from judge_installation(config, done.installation)


def _look_at_backend(config: Config) -> Iterator[Finding]:
    if "VLLM_ALL2ALL_BACKEND" in config.serve.environment:
        yield Finding(
            "all2all",
            "missing",
            "no supported release reads VLLM_ALL2ALL_BACKEND of serve.environment: set "
            "serve.options.all2all-backend",
        )
    environment = {**os.environ, **config.serve.environment}
    model = config.model
    folder = Path(model) if is_folder(model) else folder_in_cache(model, environment)
    backend = config.serve.option("all2all-backend")
    if folder is None or not isinstance(backend, str):
        return
    problem = problem_of_backend(backend, config.serve.option("dtype"), folder)
    if problem is not None:
        yield Finding("all2all", "missing", problem)
