# SPDX-License-Identifier: Apache-2.0
"""The checkout of a test, and who reads the documents."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.builders.pages import blocks_of, shell_blocks
from tests.builders.typed import Typed, typed
from tests.unit.scripts.checkout import Checkout


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a reader."""
    folder = tmp_path / "reader"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def shell(tmp_path: Path) -> Path:
    """The folder of a shell in which commands are only noted."""
    folder = tmp_path / "shell"
    folder.mkdir()
    return folder


@pytest.fixture(scope="session")
def commands_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[Typed]]:
    """The commands of a page."""

    @cache
    def commands_of(page: str) -> list[Typed]:
        return typed(shell_blocks(blocks_of(page)), tmp_path_factory.mktemp("shell"))

    return commands_of
