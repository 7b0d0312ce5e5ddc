# SPDX-License-Identifier: Apache-2.0
"""The folder of a run: what is kept, what a rerun finds finished, what is moved aside."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from eval.config.schema import Config, TaskName
from eval.errors import RunFolderError
from eval.results.lock import alone_in
from eval.results.machine import files_digest, plugin_digest
from eval.results.samples import Sample
from eval.results.schema import ArmRun, OracleResult, Result, Versions

UNFINISHED = ("interrupted", "could not run")


_Model = TypeVar("_Model", bound=BaseModel)


class RunState(BaseModel):
    """What a run was started with: ``run.json``. A rerun resumes when it is the same."""

    config_sha256: str
    model_files: str
    """From `eval.results.machine.files_digest`."""
    versions: Versions
    plugin: str = ""
    """From `eval.results.machine.plugin_digest`; earlier runs have none."""
    left_out: dict[TaskName, str] = {}
    """Tasks that no arm is asked, and why."""
    started: datetime


class RunFolder:
    """``runs/NAME``: state, arms, oracle and result."""

    def __init__(self, path: Path, state: RunState) -> None:
        self.path = path
        self.state = state

    def arm_folder(self, name: str) -> Path:
        """Where an arm's files are."""
        return self.path / "arms" / name

    def new_arm_folder(self, name: str) -> Path:
        """An empty folder for an arm; what an unfinished attempt left is moved aside."""
        folder = self.arm_folder(name)
        if folder.exists():
            _move_aside(folder, folder.with_name(f"{name}.unfinished"))
        folder.mkdir(parents=True)
        return folder

    def finished_arm(self, name: str) -> ArmRun | None:
        """An arm of this run that needs no asking."""
        file = self.arm_folder(name) / "arm.json"
        return _read(ArmRun, file) if file.exists() else None

    def samples(self, name: str) -> list[Sample]:
        """The questions and answers of a finished arm."""
        file = self.arm_folder(name) / "samples.jsonl"
        try:
            lines = file.read_text(encoding="utf-8").removesuffix("\n").split("\n")
        except OSError as error:
            raise RunFolderError(f"cannot read {file}: {error.strerror}") from error
        return [
            _parse(Sample, line.encode(), f"{file}, line {number}")
            for number, line in enumerate(lines, start=1)
        ]

    def finish_arm(self, arm: ArmRun, samples: Sequence[Sample]) -> None:
        """Keep an arm; it counts as finished from the moment ``arm.json`` is there."""
        folder = self.arm_folder(arm.name)
        lines = "".join(f"{sample.model_dump_json()}\n" for sample in samples)
        write_atomically(folder / "samples.jsonl", lines)
        write_atomically(folder / "arm.json", f"{arm.model_dump_json(indent=2)}\n")

    def oracle(self) -> OracleResult | None:
        """The comparison with transformers, if it is done."""
        file = self.path / "oracle.json"
        return _read(OracleResult, file) if file.exists() else None

    def finish_oracle(self, oracle: OracleResult) -> None:
        """Keep the comparison with transformers."""
        text = f"{oracle.model_dump_json(indent=2)}\n"
        write_atomically(self.path / "oracle.json", text)

    def finish(self, result: Result) -> None:
        """Keep the result, whatever its verdict."""
        text = f"{result.model_dump_json(indent=2, by_alias=True)}\n"
        write_atomically(self.path / "result.json", text)


@contextmanager
def open_run(
    runs: Path,
    config: Config,
    versions: Versions,
    fresh: bool,
    left_out: Mapping[TaskName, str] = {},
) -> Iterator[RunFolder]:
    """The folder of this configuration's run, for nobody else inside the context.

    An unfinished run of the same configuration, model, plugin and releases is resumed, unless
    ``fresh``; anything else of that name is moved aside. All arms of a run are asked the same: a
    resumed one leaves out what its finished arms were not asked.

    Raises:
        RunFolderError: Another evaluation is using it, or its finished arms were asked a task
            that is among ``left_out``.
    """
    path = runs / config.name
    with alone_in(path, "give this one a --name"):
        new = RunState(
            config_sha256=config.sha256(),
            model_files=files_digest(Path(config.model)),
            versions=versions,
            plugin=plugin_digest(),
            left_out=dict(left_out),
            started=datetime.now(timezone.utc),
        )
        old = None if fresh else _resumable(path, new)
        if old is None:
            if path.exists():
                _move_aside(path, path)
            path.mkdir()
            write_atomically(path / "run.json", f"{new.model_dump_json(indent=2)}\n")
        yield RunFolder(path, old or new)


def read_result(path: Path) -> Result:
    """The result in a run's folder.

    Raises:
        RunFolderError: It is not there, cut off, or of another schema.
    """
    return _read(Result, path / "result.json")


def read_state(path: Path) -> RunState:
    """What the run in a folder was started with.

    Raises:
        RunFolderError: It is not there or cut off.
    """
    return _read(RunState, path / "run.json")


def _read(model: type[_Model], file: Path) -> _Model:
    try:
        text = file.read_bytes()
    except OSError as error:
        raise RunFolderError(f"cannot read {file}: {error.strerror}") from error
    return _parse(model, text, str(file))


def _parse(model: type[_Model], text: bytes, where: str) -> _Model:
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in problem["loc"])
        raise RunFolderError(
            f"{where} was not written by this harness, or not to its end: "
            f"{key and f'{key}: '}{problem['msg']}"
        ) from error


def write_atomically(file: Path, text: str) -> None:
    """Write ``text`` so that ``file`` is never there in part."""
    partial = file.with_name(f"{file.name}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(file)
    except OSError as error:
        # On a full disk, what says so needs the room.
        partial.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(file)) from error


def _resumable(path: Path, new: RunState) -> RunState | None:
    try:
        state = read_state(path)
    except RunFolderError:
        return None
    free = {"started": new.started, "left_out": new.left_out}
    if state.model_copy(update=free) != new or _complete(path):
        return None
    if state.left_out.keys() == new.left_out.keys():
        return state
    if not any((path / "arms").glob("*/arm.json")):
        return None
    for task, why in new.left_out.items():
        if task not in state.left_out:
            raise RunFolderError(
                f"{path} cannot be resumed: its finished arms were asked {task}, and the others "
                f"cannot be. {why}; or start again without {task}: --fresh"
            )
    return state


def _complete(path: Path) -> bool:
    try:
        return read_result(path).verdict not in UNFINISHED
    except RunFolderError:
        return False


def _move_aside(path: Path, like: Path) -> None:
    stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S.%fZ")
    path.rename(like.with_name(f"{like.name}-{stamp}"))
