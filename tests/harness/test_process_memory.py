# SPDX-License-Identifier: Apache-2.0
"""What NVIDIA's driver says of GPUs and their memory."""

import os
import subprocess
from collections.abc import Sequence
from typing import Any, NamedTuple

import pynvml  # type: ignore[import-untyped]
import pytest

from eval.results.machine import this_machine
from eval.serving.memory import gpu_memory_mib, gpu_memory_of_devices_mib

_MIB = 2**20


class Process(NamedTuple):
    """Of NVML's, what is used."""

    pid: int
    usedGpuMemory: int | None  # noqa: N815 - its name there


class Memory(NamedTuple):
    """Likewise."""

    used: int


def install(
    monkeypatch: pytest.MonkeyPatch,
    processes: Sequence[Sequence[Process]] = (),
    used: Sequence[int] = (),
    name: str | bytes = "GPU",
) -> None:
    """A driver with so many GPUs."""
    count = max(len(processes), len(used))
    made_up: dict[str, Any] = {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: count,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetName": lambda _: name,
        "nvmlDeviceGetComputeRunningProcesses": lambda device: processes[device],
        "nvmlDeviceGetMemoryInfo": lambda device: Memory(used[device] * _MIB),
    }
    for function, instead in made_up.items():
        monkeypatch.setattr(pynvml, function, instead)


def refuse(monkeypatch: pytest.MonkeyPatch, function: str, code: int) -> None:
    """A call of NVML that fails."""

    def fail(*_: Any) -> None:
        raise pynvml.NVMLError(code)

    monkeypatch.setattr(pynvml, function, fail)


def test_gpu_memory_is_that_of_the_session_s_own_processes_on_all_gpus(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with subprocess.Popen(
        ["sh", "-c", "sleep 60 & echo $!; wait"],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as leader:
        assert leader.stdout is not None
        child = int(leader.stdout.readline())
        first = [Process(child, 300 * _MIB), Process(1, 9000 * _MIB), Process(leader.pid, None)]
        install(monkeypatch, [first, [Process(child, 40 * _MIB), Process(leader.pid, 20 * _MIB)]])
        assert gpu_memory_mib(leader.pid) == 360
        os.killpg(leader.pid, 15)


def test_memory_of_a_session_of_which_the_driver_does_not_tell_is_not_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Inside a container the driver may give the numbers of the host, or none.
    install(monkeypatch, [[Process(2**22 + 1, 500 * _MIB), Process(os.getpid(), None)]])
    assert gpu_memory_mib(os.getsid(0)) is None


def test_devices_have_memory_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, used=[500, 700])
    assert gpu_memory_of_devices_mib() == 1200


@pytest.mark.parametrize("name", ["NVIDIA H100", b"NVIDIA H100"])
def test_accelerators_are_named(monkeypatch: pytest.MonkeyPatch, name: str | bytes) -> None:
    install(monkeypatch, used=[1, 2], name=name)
    assert this_machine().accelerators == ["NVIDIA H100"] * 2


@pytest.mark.parametrize(
    ("function", "code"),
    [
        ("nvmlInit", pynvml.NVML_ERROR_LIBRARY_NOT_FOUND),
        ("nvmlInit", pynvml.NVML_ERROR_DRIVER_NOT_LOADED),
        ("nvmlDeviceGetHandleByIndex", pynvml.NVML_ERROR_GPU_IS_LOST),
    ],
)
def test_without_a_gpu_or_its_driver_nothing_is_known(
    monkeypatch: pytest.MonkeyPatch, function: str, code: int
) -> None:
    install(monkeypatch, [[]], used=[1])
    refuse(monkeypatch, function, code)

    assert this_machine().accelerators == []
    assert gpu_memory_of_devices_mib() is None
    assert gpu_memory_mib(os.getsid(0)) is None
