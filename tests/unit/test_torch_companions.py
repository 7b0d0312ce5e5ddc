# SPDX-License-Identifier: Apache-2.0
"""A package that is built for another torch is named, where it keeps vLLM from being imported."""

import importlib
import importlib.metadata
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from vllm_eplb_plugin.cli.torch_companions import companion_problem

REFUSES = "raise RuntimeError('operator torchvision::nms does not exist')\n"


def install(folder: Path, name: str, code: str) -> None:
    """A distribution of one package, before all others on the path."""
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(code)
    metadata = folder / f"{name}-0.28.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.28.0\n")


def told(folder: Path, module: str, monkeypatch: pytest.MonkeyPatch) -> str | None:
    """What is said of an error that importing a module raises, as transformers tells of one."""
    monkeypatch.syspath_prepend(folder)
    for name in ("torchvision", "torchaudio", "theirs"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    try:
        try:
            importlib.import_module(module)
        except Exception as error:
            raise RuntimeError("Failed to import models (look up to see why)") from error
    except RuntimeError as error:
        return companion_problem(error)
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize("name", ["torchvision", "torchaudio"])
def test_a_package_of_another_torch_is_named_with_what_helps(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, name, REFUSES)
    install(tmp_path, "theirs", f"import {name}\n")
    problem, torch = told(tmp_path, "theirs", monkeypatch) or "", version("torch")
    assert problem.startswith(
        f"{name} 0.28.0 cannot be imported (RuntimeError: operator torchvision::nms does not "
        f"exist), because it is not built for the torch {torch} that is there"
    )
    assert f": pip uninstall {name}." in problem
    backend = torch.partition("+")[2] or "auto"
    assert problem.endswith(
        f": uv pip install --torch-backend {backend} --reinstall-package {name} "
        f"'torch=={torch}' {name}"
    )


@pytest.mark.parametrize(
    ("package", "code"),
    [
        ("theirs", REFUSES),
        ("torchvision", "import nowhere_to_be_found\n"),
        ("theirs", "import torchvision_that_is_not_there\n"),
    ],
)
def test_what_else_cannot_be_imported_is_no_matter_of_the_torch(
    package: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, package, code)
    assert told(tmp_path, package, monkeypatch) is None


def test_what_fails_in_a_third_package_is_no_matter_of_the_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "torchvision", "import theirs\n")
    install(tmp_path, "theirs", "raise ImportError(\"cannot import name '_imaging'\")\n")
    assert told(tmp_path, "torchvision", monkeypatch) is None


def test_no_index_is_asked_for_a_torch_that_somebody_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "torchvision", REFUSES)
    built = {"torch": "2.9.0a0+git1234", "torchvision": "0.28.0"}
    monkeypatch.setattr(importlib.metadata, "version", built.__getitem__)
    problem = told(tmp_path, "torchvision", monkeypatch) or ""
    assert problem.endswith(". Or get a torchvision that was built with that torch")


def test_a_package_that_no_installer_knows_is_not_blamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torchvision.py").write_text(REFUSES)
    assert told(tmp_path, "torchvision", monkeypatch) is None


def test_doctor_says_so_and_does_not_send_for_another_vllm(tmp_path: Path) -> None:
    install(tmp_path, "torchvision", REFUSES)
    install(tmp_path, "vllm", "import torchvision\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "vllm_eplb_plugin.cli", "doctor"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "problem: vLLM cannot be imported: torchvision 0.28.0 cannot be imported" in done.stdout
    assert "again" not in done.stdout
