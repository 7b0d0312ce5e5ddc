# SPDX-License-Identifier: Apache-2.0
"""Memory on a CPU that another process opens."""

import contextlib
import os
from pathlib import Path

import torch

from vllm_eplb_plugin.transfer.peer_memory import open_shared, share

CPU = torch.device("cpu")


def descriptors(memory: set[tuple[int, int]]) -> int:
    """Count this process's descriptors of that memory, by device and inode; others come and go."""
    found = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            status = descriptor.stat()
            found += (status.st_dev, status.st_ino) in memory
    return found


def test_a_reader_keeps_no_descriptor_for_what_it_has_open() -> None:
    layers = [[torch.full((4, 8), float(number)) for number in range(4)] for _ in range(61)]
    shared = share(layers)
    handed_over = [os.fstat(descriptor) for descriptor, _ in shared.storages]
    memory = {(status.st_dev, status.st_ino) for status in handed_over}
    before = descriptors(memory)
    assert before == 4 * 61
    opened = [open_shared(shared, CPU) for _ in range(7)]
    assert descriptors(memory) == before
    layers[60][3][2] = 5
    assert all(torch.equal(peer[60][3], layers[60][3]) for peer in opened)
    assert shared.process == os.getpid()


def test_a_tensor_without_bytes_is_no_obstacle() -> None:
    weights = [torch.ones(4, 8), torch.empty(4, 0, dtype=torch.int32)]
    opened = open_shared(share([weights]), CPU)
    assert [tensor.shape for tensor in opened[0]] == [(4, 8), (4, 0)]
    assert torch.equal(opened[0][0], weights[0])
