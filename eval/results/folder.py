# SPDX-License-Identifier: Apache-2.0
"""The folder of a run: what is kept, what a rerun finds finished, what is moved aside."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

from eval.config.schema import Config, TaskName
from eval.errors import RunFolderError
from eval.results.digests import (
    arm_files,
    file_digests,
    require_digests,
    run_files,
    values_digest,
)
from eval.results.json_files import parse_model, read_model
from eval.results.lock import alone_in
from eval.results.oracle_result import OracleResult
from eval.results.resuming import begun_now, resumable
from eval.results.samples import Sample
from eval.results.schema import ArmRun, Result
from eval.results.state import RunState
from eval.results.surroundings import Versions
from eval.results.writing import write_atomically


class RunFolder:
    """``runs/NAME``: state, arms, oracle and result."""

    def __init__(self, path: Path, state: RunState) -> None:
        self.path = path
        self.state = state

    def arm_folder(self, name: str) -> Path:
        """Where an arm's files are."""
        return self.path / "arms" / name

    def new_arm_folder(self, name: str) -> Path:
        """An empty folder for an arm; what an unfinished attempt left is moved aside.

        Raises:
            RunFolderError: There can be none.
        """
        folder = self.arm_folder(name)
        try:
            if folder.exists():
                _move_aside(folder, folder.with_name(f"{name}.unfinished"))
            folder.mkdir(parents=True)
        except OSError as error:
            what = f"cannot use {folder}: {error.strerror}"
            raise RunFolderError(f"{what}. Start again with --fresh") from error
        return folder

    def finished_arm(self, name: str) -> ArmRun | None:
        """An arm of this run that needs no asking."""
        file = self.arm_folder(name) / "arm.json"
        return read_model(ArmRun, file) if file.exists() else None

    def require_whole_arms(self) -> None:
        """Finished arms must be as they were when they were kept, before anything else is asked.

        Raises:
            RunFolderError: One is damaged or of another run; says what to do.
        """
        for file in sorted((self.path / "arms").glob("*/arm.json")):
            name = file.parent.name
            if ".unfinished-" in name:
                continue
            try:
                self._require_whole_arm(name)
            except RunFolderError as error:
                what = f"{self.path} cannot be resumed, its finished arm {name} is damaged"
                instead = f"Start again with --fresh, or remove {file.parent} to ask this arm again"
                raise RunFolderError(f"{what}: {error}. {instead}") from error

    def _require_whole_arm(self, name: str) -> None:
        folder = self.arm_folder(name)
        arm = read_model(ArmRun, folder / "arm.json")
        if (arm.name, arm.run) != (name, self.state.id):
            raise RunFolderError(f"{folder / 'arm.json'} is of another arm or run")
        if "samples.jsonl" not in arm.files:
            raise RunFolderError(f"{folder / 'arm.json'} has no digest of samples.jsonl")
        require_digests(folder, arm.files, growing=True)
        if len(self.samples(name)) != sum(task.questions for task in arm.tasks):
            raise RunFolderError(f"{folder / 'samples.jsonl'} is not complete")

    def samples(self, name: str) -> list[Sample]:
        """The questions and answers of a finished arm."""
        file = self.arm_folder(name) / "samples.jsonl"
        try:
            lines = file.read_text(encoding="utf-8").removesuffix("\n").split("\n")
        except OSError as error:
            raise RunFolderError(f"cannot read {file}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise RunFolderError(f"{file} is not UTF-8, byte {error.start}") from error
        return [
            parse_model(Sample, line.encode(), f"{file}, line {number}")
            for number, line in enumerate(lines, start=1)
        ]

    def finish_arm(self, arm: ArmRun, samples: Sequence[Sample]) -> None:
        """Keep an arm; it counts as finished from the moment ``arm.json`` is there."""
        folder = self.arm_folder(arm.name)
        lines = "".join(f"{sample.model_dump_json()}\n" for sample in samples)
        write_atomically(folder / "samples.jsonl", lines)
        files = file_digests(folder, arm_files(folder))
        kept = arm.model_copy(update={"run": self.state.id, "files": files})
        write_atomically(folder / "arm.json", f"{kept.model_dump_json(indent=2)}\n")

    def oracle(self) -> OracleResult | None:
        """The comparison with transformers, if it is done."""
        return read_model(OracleResult, self.oracle_file) if self.oracle_file.exists() else None

    @property
    def oracle_file(self) -> Path:
        """Where that comparison is kept."""
        return self._oracle_path(".json")

    def oracle_texts(self) -> tuple[Path, Path]:
        """What transformers was asked, and what it answered."""
        folder = self._oracle_path("")
        return folder / "request.json", folder / "answers.json"

    def _oracle_path(self, suffix: str) -> Path:
        """Before schema 5 the oracle was called reference."""
        earlier = self.path / f"reference{suffix}"
        return earlier if not self.state.id and earlier.exists() else self.path / f"oracle{suffix}"

    def finish_oracle(self, oracle: OracleResult) -> None:
        """Keep the comparison with transformers."""
        text = f"{oracle.model_dump_json(indent=2)}\n"
        write_atomically(self.path / "oracle.json", text)

    def finish(self, result: Result) -> None:
        """Keep the result, whatever its verdict, with digests of what it comes from."""
        arms = [arm.name for arm in result.config.arms]
        files = file_digests(self.path, run_files(self.path, arms))
        result = result.model_copy(update={"run": self.state.id, "files": files})
        values = result.model_dump(mode="json", by_alias=True)
        text = json.dumps({**values, "sha256": values_digest(values)}, indent=2)
        write_atomically(self.path / "result.json", f"{text}\n")


@contextmanager
def open_run(
    runs: Path,
    config: Config,
    versions: Versions,
    fresh: bool,
    left_out: Mapping[TaskName, str] = {},
    revision: str = "",
) -> Iterator[RunFolder]:
    """The folder of this configuration's run, for nobody else inside the context.

    An unfinished run of the same configuration, model, plugin and releases is resumed, unless
    ``fresh``; anything else of that name is moved aside. All arms of a run are asked the same: a
    resumed one leaves out what its finished arms were not asked. ``revision`` is that of a model in
    the Hub's cache; one that was not there yet may be any.

    Raises:
        RunFolderError: Another evaluation is using it, a finished arm is damaged, or the finished
            ones were asked a task that is among ``left_out``.
    """
    path = runs / config.name
    with alone_in(path, "give this one a --name"):
        new = begun_now(config, versions, left_out, revision)
        old = None if fresh else resumable(path, new)
        if old is None:
            if path.exists():
                _move_aside(path, path)
            path.mkdir()
            write_atomically(path / "run.json", f"{new.model_dump_json(indent=2)}\n")
        folder = RunFolder(path, old or new)
        folder.require_whole_arms()
        yield folder


def read_result(path: Path) -> Result:
    """The result in a run's folder.

    Raises:
        RunFolderError: It is not there, cut off, or of another schema.
    """
    return read_model(Result, path / "result.json")


def _move_aside(path: Path, like: Path) -> None:
    stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S.%fZ")
    path.rename(like.with_name(f"{like.name}-{stamp}"))
