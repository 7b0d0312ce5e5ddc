# SPDX-License-Identifier: Apache-2.0
"""How expert weights get from rank to rank is asked of the machine, here of a pretended one."""

import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from typer.testing import CliRunner

from vllm_eplb_plugin.cli import doctor
from vllm_eplb_plugin.cli.main import main

CANNOT_READ = (2, 0)


@pytest.fixture
def three_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of which the last cannot read the first, in an environment with vLLM for GPUs."""
    monkeypatch.setattr(doctor, "installed_distribution", lambda: ("vllm", "0.32.0"))
    monkeypatch.setattr(doctor, "fast_ways", lambda *_: [])  # tried by using a GPU
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (2**36, 2**36))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"GPU {index}")
    monkeypatch.setattr(torch.cuda, "can_device_access_peer", lambda *pair: pair != CANNOT_READ)


def told() -> list[str]:
    """What the doctor prints of expert weights."""
    lines = CliRunner().invoke(main, ["doctor"]).stdout.splitlines()
    return [line for line in lines if "expert weights" in line or "NIXL" in line]


@pytest.fixture
def nixl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The module of a package nixl that can be imported."""
    (tmp_path / "nixl").mkdir()
    (tmp_path / "nixl" / "__init__.py").touch()
    (tmp_path / "nixl" / "_api.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("nixl", "nixl._api"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path / "nixl" / "_api.py"


@pytest.mark.usefixtures("three_gpus")
def test_gpus_that_are_no_peers_go_over_gloo_and_the_way_out_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "nixl", None)
    line, note = told()
    assert line.startswith("expert weights: over gloo, through host memory, because not all GPUs")
    assert line.endswith("can read each other's memory: 0 and 2")
    assert note.startswith("note: gloo sends expert weights through host memory: 0.71 GB/s")
    assert "Install the package nixl, not nixl-cu12" in note


@pytest.mark.usefixtures("three_gpus", "nixl")
def test_nixl_is_found_where_vllm_finds_it() -> None:
    [line] = told()
    assert "by NIXL, because not all GPUs" in line


@pytest.mark.usefixtures("three_gpus")
def test_a_nixl_that_cannot_be_imported_is_told_of(nixl: Path) -> None:
    nixl.write_text("raise ImportError('libucp.so.0: cannot open shared object file')")
    _, note = told()
    assert "note: vLLM 0.32.0 chooses NIXL" in note
    assert "ImportError: libucp.so.0" in note


def test_on_a_cpu_the_size_of_shared_memory_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = SimpleNamespace(free=2**26)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage if folder == "/dev/shm" else 0)
    line, note = told()
    assert line == "expert weights: through shared memory, of which 64 MiB are free in /dev/shm"
    assert note.startswith("note: /dev/shm has 64 MiB left")
