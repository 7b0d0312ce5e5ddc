# SPDX-License-Identifier: Apache-2.0
"""Which releases are said to be installed."""

import importlib
import sys
from pathlib import Path

import pytest

from eval.results.machine import installed_versions


@pytest.fixture
def without_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for all that is installed."""
    own = [path for path in sys.path if "site-packages" not in path]
    monkeypatch.setattr(sys, "path", [str(tmp_path), *own])
    monkeypatch.delitem(sys.modules, "vllm", raising=False)
    importlib.invalidate_caches()
    return tmp_path


@pytest.mark.usefixtures("without_packages")
def test_without_vllm_none_is_named() -> None:
    versions = installed_versions()
    assert (versions.vllm_distribution, versions.vllm) == (None, None)


@pytest.mark.parametrize(
    ("file", "text"), [("top_level.txt", "vllm\n"), ("RECORD", "vllm/__init__.py,,\n")]
)
def test_the_distribution_of_vllm_is_named_however_it_was_built(
    file: str, text: str, without_packages: Path
) -> None:
    (without_packages / "vllm").mkdir()
    (without_packages / "vllm" / "__init__.py").write_text("")
    metadata = without_packages / "vllm_elsewhere-1.2.3.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Name: vllm-elsewhere\nVersion: 1.2.3\n")
    (metadata / file).write_text(text)
    versions = installed_versions()
    assert (versions.vllm_distribution, versions.vllm) == ("vllm-elsewhere", "1.2.3")
