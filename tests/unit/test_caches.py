# SPDX-License-Identifier: Apache-2.0
"""A folder that a server compiles into and cannot write is told of, and looking leaves nothing."""

from pathlib import Path
from typing import IO

import pytest

from vllm_eplb_plugin.cli.caches import cache_hints

VARIABLES = ("TRITON_HOME", "TRITON_CACHE_DIR", "XDG_CACHE_HOME", "VLLM_CACHE_ROOT")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_nothing_is_said_of_folders_that_can_be_made(home: Path) -> None:
    assert cache_hints(on_cpu=False) == []
    assert list(home.iterdir()) == []


# In place of a folder that this user may not write, which root always may.
@pytest.mark.parametrize(
    ("variable", "below", "named"),
    [
        (None, ".triton", "TRITON_CACHE_DIR"),
        ("TRITON_HOME", ".triton/cache", "TRITON_CACHE_DIR"),
        ("TRITON_CACHE_DIR", "", "TRITON_CACHE_DIR"),
        (None, ".cache", "VLLM_CACHE_ROOT"),
        ("XDG_CACHE_HOME", "vllm", "VLLM_CACHE_ROOT"),
        ("VLLM_CACHE_ROOT", "", "VLLM_CACHE_ROOT"),
    ],
)
def test_a_folder_that_cannot_be_written_is_named_with_its_variable(
    variable: str | None, below: str, named: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    top = home
    if variable is not None:
        top = home / "elsewhere"
        monkeypatch.setenv(variable, str(top))
    file = top / below
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("")
    [hint] = cache_hints(on_cpu=False)
    assert str(file) in hint
    assert f"Set {named} to a folder" in hint
    assert f"({file}: Not a directory)" in hint


def full(dir: Path) -> IO[bytes]:
    return Path("/dev/full").open("wb")


def test_a_full_disk_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.TemporaryFile", full)
    hints = cache_hints(on_cpu=False)
    assert len(hints) == 2
    assert all("No space left on device" in hint for hint in hints)


def test_triton_is_not_asked_for_on_a_cpu(home: Path) -> None:
    (home / ".triton").write_text("")
    assert cache_hints(on_cpu=True) == []
