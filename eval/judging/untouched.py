# SPDX-License-Identifier: Apache-2.0
"""Whether the files of a kept run are those that it ended with (docs/gates.md)."""

import hashlib
import json

from eval.activity.totals import Activity
from eval.errors import GateError, RunFolderError
from eval.judging.kept_arm import require_finished
from eval.results.digests import require_digests, run_files, values_digest
from eval.results.folder import RunFolder
from eval.results.schema import SCHEMA_VERSION, ArmResult, ArmRun, Result


def require_untouched(folder: RunFolder, result: Result) -> None:
    """Compare digests, and what several files say alike.

    Raises:
        GateError: A file was changed, added or taken away since the run ended; names it.
    """
    file, state = folder.path / "result.json", folder.state
    values = json.loads(file.read_bytes())
    text = json.dumps(values["config"], sort_keys=True)
    if hashlib.sha256(text.encode()).hexdigest() != result.config_sha256:
        raise GateError(f"{file}: config is not what config_sha256 says: it was changed")
    if result.schema_version >= SCHEMA_VERSION:
        if values_digest(values) != result.sha256:
            raise GateError(f"{file} was changed after the run, so there is no verdict")
        _require_digests(folder, result)
    said = {
        "run": (result.run, state.id),
        "config_sha256": (result.config_sha256, state.config_sha256),
        "left_out": (result.left_out, dict(state.left_out)),
        "versions": (result.versions, state.versions),
        "started": (result.started, state.started),
    }
    for field, (mine, its) in said.items():
        if mine != its:
            raise GateError(f"{file}: {field} is {mine}, in {folder.path / 'run.json'} it is {its}")
    if result.oracle != folder.oracle():
        raise GateError(
            f"{file}: oracle is {result.oracle}, in {folder.oracle_file} it is {folder.oracle()}"
        )
    names = {arm.name for arm in result.config.arms}
    for arm_file in sorted((folder.path / "arms").glob("*/arm.json")):
        if arm_file.parent.name not in names and ".unfinished-" not in arm_file.parent.name:
            raise GateError(f"{arm_file} is of an arm that the configuration in {file} lacks")
    for arm in result.arms:
        _require_same_arm(folder, arm)


def _require_digests(folder: RunFolder, result: Result) -> None:
    file = folder.path / "result.json"
    names = [arm.name for arm in result.config.arms]
    for name in names:
        require_finished(folder, name)
    there = {str(one.relative_to(folder.path)) for one in run_files(folder.path, names)}
    for name in sorted(there ^ result.files.keys()):
        what = "has no digest" if name in there else "is missing"
        raise GateError(
            f"{folder.path / name} {what}, so there is no verdict: the files of a run are those "
            f"that {file} lists"
        )
    try:
        require_digests(folder.path, result.files)
    except RunFolderError as error:
        raise GateError(f"{error}: it was changed after the run, so there is no verdict") from error


def _require_same_arm(folder: RunFolder, arm: ArmResult) -> None:
    """What was measured once stands in two files; activity may have been counted again."""
    file = folder.arm_folder(arm.name) / "arm.json"
    kept = folder.finished_arm(arm.name)
    if kept is None:
        return
    fields = ArmRun.model_fields.keys() - Activity.model_fields.keys() - {"tasks"}
    tasks = [task.model_dump(exclude={"identical_to_off"}) for task in arm.tasks]
    differ = [one for one in sorted(fields) if getattr(arm, one) != getattr(kept, one)]
    if tasks != [task.model_dump() for task in kept.tasks]:
        differ.append("tasks")
    if differ:
        raise GateError(
            f"{file} and {folder.path / 'result.json'} differ in {', '.join(differ)}: one of the "
            "two was changed or is of another run"
        )
