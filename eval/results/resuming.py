# SPDX-License-Identifier: Apache-2.0
"""Whether a run that did not get to its end is the one that is asked for again."""

import os
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from uuid import uuid4

from eval.config.schema import Config, TaskName
from eval.errors import RunFolderError
from eval.results.json_files import read_model
from eval.results.machine import files_digest, plugin_digest
from eval.results.schema import Result
from eval.results.state import RunState, read_state
from eval.results.surroundings import Versions

UNFINISHED = ("interrupted", "could not run")


def begun_now(
    config: Config, versions: Versions, left_out: Mapping[TaskName, str], revision: str
) -> RunState:
    """What a run is started with.

    Args:
        config: What to do.
        versions: What is installed.
        left_out: Tasks that no arm is asked, and why.
        revision: Of a model in the Hub's cache.
    """
    return RunState(
        config_sha256=config.sha256(),
        model_files=files_digest(Path(config.model), revision),
        versions=versions,
        plugin=plugin_digest(),
        left_out=dict(left_out),
        started=datetime.now(timezone.utc),
        id=uuid4().hex,
    )


def kept_arms(path: Path, new: RunState) -> set[str]:
    """Names of the finished arms in a run's folder that a run started now does not ask again.

    Raises:
        RunFolderError: As `resumable`.
    """
    if resumable(path, new) is None:
        return set()
    names = {file.parent.name for file in (path / "arms").glob("*/arm.json")}
    return {name for name in names if ".unfinished-" not in name}


def resumable(path: Path, new: RunState) -> RunState | None:
    """What the run in a folder was started with, if one that is started now goes on with it.

    Args:
        path: Of the run's folder.
        new: From `begun_now`.

    Raises:
        RunFolderError: Its finished arms were asked a task that cannot be had now.
    """
    try:
        state = read_state(path)
    except RunFolderError:
        return None
    free = {"started": new.started, "left_out": new.left_out, "id": new.id}
    if files_digest(Path(os.devnull)) in (state.model_files, new.model_files):
        free["model_files"] = new.model_files
    if not state.id:  # from before digests, which could not be resumed as a run of today
        return None
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
        return read_model(Result, path / "result.json").verdict not in UNFINISHED
    except RunFolderError:
        return False
