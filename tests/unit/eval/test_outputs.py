# SPDX-License-Identifier: Apache-2.0
"""What a command is to write is looked at before it works for hours."""

from pathlib import Path

import pytest

from eval.errors import PreflightError
from eval.preflight import outputs
from eval.preflight.outputs import require_file, require_folder


def test_a_new_file_an_old_one_and_a_folder_for_one_are_fine(tmp_path: Path) -> None:
    old = tmp_path / "old.xml"
    old.write_text("old")
    for file in (None, old, tmp_path / "new.xml", tmp_path / "new/folder/x.xml", tmp_path):
        require_file(file, "--junit", "run.xml")

    assert old.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["old.xml"]


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "full").symlink_to("/dev/full")
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "nowhere").symlink_to("/proc/nowhere/file")
    (tmp_path / "run.xml").mkdir()
    for path, message in [
        ("/dev/full", "/dev/full is a device or a pipe"),
        ("full", "full is a device or a pipe"),
        ("file/x.xml", "cannot be written: Not a dir"),
        ("nowhere", "nowhere cannot be written"),
        ("/proc/x.xml", "/proc/x.xml cannot be written"),
        ("circle", "circle cannot be written: Too many levels"),
        ("circle/x.xml", "cannot be written"),
        ("n" * 300, "cannot be written: File name too long"),
        ("a\0b", "cannot be written"),
        ("", "run.xml is a folder"),
    ]:
        with pytest.raises(PreflightError, match=message):
            require_file(tmp_path / path, "--junit", "run.xml")
    with pytest.raises(PreflightError, match="is a folder: name a file"):
        require_file(tmp_path, "--html")


def test_a_folder_of_runs_has_to_be_one_with_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_folder(tmp_path / "runs/name")
    assert not list(tmp_path.iterdir())

    (tmp_path / "runs").touch()
    with pytest.raises(PreflightError, match="cannot be written: Not a dir"):
        require_folder(tmp_path / "runs/name")
    with pytest.raises(PreflightError, match="cannot be written"):
        require_folder(Path("/proc/runs/name"))
    monkeypatch.setattr(outputs, "_LEAST_FREE_BYTES", 2**80)
    with pytest.raises(PreflightError, match="MiB are free on its disk"):
        require_folder(tmp_path)
