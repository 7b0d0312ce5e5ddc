# SPDX-License-Identifier: Apache-2.0
"""What a run was started with."""

from datetime import datetime
from pathlib import Path

from pydantic import BaseModel

from eval.config.schema import TaskName
from eval.results.json_files import read_model
from eval.results.schema import Versions


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
    id: str = ""
    """Of this run and no other; earlier runs have none."""


def read_state(path: Path) -> RunState:
    """What the run in a folder was started with.

    Raises:
        RunFolderError: It is not there or cut off.
    """
    return read_model(RunState, path / "run.json")
