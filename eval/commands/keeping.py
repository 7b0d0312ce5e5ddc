# SPDX-License-Identifier: Apache-2.0
"""What latency, stress and throughput do alike: a folder, an end with a verdict, a kept result."""

from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from math import isfinite
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from eval.commands.accuracy import Ended
from eval.config.schema import Config
from eval.config.section import Name
from eval.errors import ConfigError, EvaluationError, RunFolderError
from eval.judging.verdict import reasons, verdict
from eval.results.folder import RunFolder, read_result
from eval.results.latency import LatencyWorkload
from eval.results.machine import plugin_commit, this_machine
from eval.results.schema import ArmResult, ArmRun, Result, RuleResult, RunKind
from eval.results.stress import StressWorkload
from eval.results.throughput import ThroughputWorkload
from eval.results.writing import write_atomically, write_named
from eval.secrets import SECRETS

_OF_A_RUN = ("run.json", "result.json", "latency.json", "stress.json")
"""One of them is in every folder that this harness made, today's and before."""


def place(kind: RunKind, name: str | None, folder: Path | None) -> tuple[Path, str]:
    """The folder of runs and the name in it, of ``--name`` or ``--folder``.

    Raises:
        ConfigError: Both were given, or the name cannot be that of a run.
        RunFolderError: The folder is there and is no run's: it would be moved aside.
    """
    if folder is None:
        return Path("runs"), _checked(kind if name is None else name, "--name")
    if name is not None:
        raise ConfigError(f"--name {name} is runs/{name}, --folder {folder} another: give one")
    absolute = folder.absolute()
    if absolute.exists() and not _may_be_moved_aside(absolute):
        raise RunFolderError(
            f"--folder {folder} is there and is not that of a run: give one that is not, or is "
            "empty"
        )
    return folder.parent, _checked(absolute.name, "--folder")


def _may_be_moved_aside(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    return any((folder / file).exists() for file in _OF_A_RUN) or not any(folder.iterdir())


def _checked(name: str, option: str) -> str:
    try:
        return TypeAdapter[str](Name).validate_python(name)
    except ValidationError as error:
        raise ConfigError(
            f"{option} {name}: a run is named by letters, digits, '.', '_' and '-', and begins "
            "with one of the first two"
        ) from error


def require_writable(*files: Path | None) -> None:
    """Before anything starts: what is written at the end can be.

    Raises:
        ConfigError: A file has no folder, or is one.
    """
    for file in files:
        if file is not None and not file.parent.is_dir():
            raise ConfigError(f"{file} cannot be written: there is no folder {file.parent}")
        if file is not None and file.is_dir():
            raise ConfigError(f"{file} cannot be written: it is a folder")


def require_numbers(**values: float | None) -> None:
    """Refuse what a command line can say but nothing can be measured by.

    Args:
        values: Of options, by their names with underscores.

    Raises:
        ConfigError: One is infinite, or not a number.
    """
    for name, value in values.items():
        if value is not None and not isfinite(value):
            option = name.replace("_", "-")
            raise ConfigError(f"--{option} {value:g}: give a number that is finite")


def attempt(what: Callable[[], None], doing: Callable[[], str]) -> Ended | None:
    """Do ``what``; None when it got to its end.

    Args:
        what: Starts servers and asks.
        doing: What it was about when it ended early.
    """
    try:
        what()
    except KeyboardInterrupt:
        return Ended("interrupted", f"interrupted during {doing()}; nothing of it is resumed")
    except EvaluationError as error:
        return Ended("could not run", str(error))
    except OSError as error:
        return Ended("could not run", f"{error.filename or 'a file'}: {error.strerror}")
    return None


def keep_arm(folder: RunFolder, arm: ArmRun) -> None:
    """Keep an arm before the next one, which may end everything."""
    text = f"{arm.model_dump_json(indent=2)}\n"
    write_atomically(folder.arm_folder(arm.name) / "arm.json", text)


def copy_result(folder: Path, file: Path | None) -> None:
    """Write what a run's folder keeps as its result into another file, too.

    Raises:
        RunFolderError: It cannot be written.
    """
    if file is None:
        return
    write_named(file, (folder / "result.json").read_text(encoding="utf-8"))


def kept_result(
    kind: RunKind,
    config: Config,
    folder: RunFolder,
    arms: Sequence[ArmRun],
    rules: Sequence[RuleResult],
    ended: Ended | None,
    latency: LatencyWorkload | None = None,
    stress: StressWorkload | None = None,
    throughput: ThroughputWorkload | None = None,
) -> Result:
    """Make the result and keep it in the run's folder.

    Args:
        kind: Of the run.
        config: What was served.
        folder: Of the run.
        arms: That were asked to the end.
        rules: Of a run that got to its end; others are not judged.
        ended: Why a run did not get to its end.
        latency: What a latency run asked.
        stress: What a stress run asked.
        throughput: What a throughput run asked.
    """
    rules = [] if ended else list(rules)
    result = Result(
        kind=kind,
        name=config.name,
        verdict=ended.verdict if ended else verdict(rules),
        reasons=[ended.reason] if ended else reasons(rules),
        rules=rules,
        started=folder.state.started,
        finished=datetime.now(timezone.utc),
        versions=folder.state.versions,
        plugin_commit=plugin_commit(),
        machine=this_machine(),
        config=config,
        config_sha256=config.sha256(),
        latency=latency,
        stress=stress,
        throughput=throughput,
        arms=[ArmResult.model_validate(dict(arm)) for arm in arms],
    )
    result = SECRETS.hide_in_model(result)
    folder.finish(result)
    return read_result(folder.path)
