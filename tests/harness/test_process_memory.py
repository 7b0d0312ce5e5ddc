# SPDX-License-Identifier: Apache-2.0
"""What nvidia-smi says of memory."""

import os
import subprocess
from pathlib import Path

import pytest

from eval.serving.memory import gpu_memory_mib, gpu_memory_of_devices_mib, sum_of_session


def test_gpu_memory_is_that_of_the_server_s_own_processes() -> None:
    listing = "11, 500\n12, 700\n12, 40\n99, 8000\n13, [N/A]\n"
    assert sum_of_session(listing, 1, {11: 1, 12: 1, 13: 1, 99: 2}.get) == 1240
    assert sum_of_session("99, 8000\n", 1, {99: 2}.get) is None
    assert sum_of_session("", 1, {}.get) is None


def install_nvidia_smi(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)


def test_a_session_has_its_children_s_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with subprocess.Popen(
        ["sh", "-c", "sleep 60 & echo $!; wait"],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as leader:
        assert leader.stdout is not None
        child = leader.stdout.readline().strip()
        install_nvidia_smi(
            tmp_path, monkeypatch, f"echo '{child}, 300'; echo '{leader.pid}, 20'; echo '1, 9000'"
        )
        assert gpu_memory_mib(leader.pid) == 320
        os.killpg(leader.pid, 15)


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("echo 500; echo 700", 1200),
        ("echo '[N/A]'", None),
        ("echo 'NVIDIA-SMI has failed because error 9 came'; exit 9", None),
    ],
)
def test_devices_have_memory_in_use_if_nvidia_smi_tells(
    script: str, expected: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_nvidia_smi(tmp_path, monkeypatch, script)
    assert gpu_memory_of_devices_mib() == expected
