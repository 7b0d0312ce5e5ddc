# SPDX-License-Identifier: Apache-2.0
"""Memory of one process that others of the same host read: what is handed over, and opened.

On a GPU it is the allocation itself, by CUDA IPC, which costs no memory on either side; on a CPU
the weights move into shared memory. PyTorch's own sharing of storages between processes
(``torch.multiprocessing.reductions``) does both, with two differences here: a reader opens
another GPU's memory on the index of its own GPU, where ``rebuild_cuda_tensor`` would make a context
on the other one; and shared memory has no name, so that nothing is left of it when its processes
have ended.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

_SHARED_MEMORY = "/dev/shm"
"""Where PyTorch makes it."""


class SharingError(RuntimeError):
    """Memory cannot be shared, or cannot be opened; the message says why."""


@dataclass(frozen=True)
class SharedTensor:
    """Where in a shared storage a tensor lies."""

    storage: int
    """Which of `SharedWeights.storages`."""
    dtype: torch.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class SharedWeights:
    """What another process needs to open the expert weights of one rank; it can be pickled."""

    process: int
    device: str
    """Its type."""
    storages: tuple[Any, ...]
    """Handles of PyTorch's, by the device's type."""
    layers: tuple[tuple[SharedTensor, ...], ...]


def storages_of(layers: Iterable[Iterable[torch.Tensor]]) -> dict[int, torch.UntypedStorage]:
    """Find the memory of weights, by address: several tensors may lie in one storage."""
    tensors = (tensor for layer in layers for tensor in layer)
    return {one.data_ptr(): one for one in (tensor.untyped_storage() for tensor in tensors)}


def share(layers: Sequence[Sequence[torch.Tensor]]) -> SharedWeights:
    """Let other processes open a rank's expert weights.

    On a CPU they move into shared memory, and every view of them follows.

    Raises:
        SharingError: They are in no memory that can be shared.
    """
    before = storages_of(layers)
    device = layers[0][0].device.type
    numbers = {address: number for number, address in enumerate(before)}
    # Before the storages are shared: on a CPU that changes addresses.
    tensors = tuple(
        tuple(
            SharedTensor(
                numbers[tensor.untyped_storage().data_ptr()],
                tensor.dtype,
                int(tensor.storage_offset()),
                tuple(tensor.shape),
                tensor.stride(),
            )
            for tensor in layer
        )
        for layer in layers
    )
    try:
        handles = tuple(_handle(storage, device) for storage in before.values())
    except RuntimeError as error:
        raise SharingError(f"memory of the expert weights cannot be shared: {error}") from error
    return SharedWeights(os.getpid(), device, handles, tensors)


def open_shared(shared: SharedWeights, device: torch.device) -> list[list[torch.Tensor]]:
    """Open another process's expert weights, by layer.

    Args:
        shared: What it has handed over.
        device: Of the reader; a GPU's index is its own, wherever the memory is.

    Raises:
        SharingError: They cannot be opened, as where a GPU cannot reach the other one.
    """
    try:
        storages = [_open(handle, shared, device) for handle in shared.storages]
    except (RuntimeError, OSError) as error:
        raise SharingError(f"its memory cannot be opened: {error}") from error
    return [[_view(one, storages[one.storage], device) for one in layer] for layer in shared.layers]


def shared_memory_problem(needed: int) -> str | None:
    """Say why weights on a CPU cannot move into shared memory; None: there is room.

    What becomes of a process that runs out of it on the way depends on PyTorch's release.

    Args:
        needed: Bytes, by all ranks of this host together.
    """
    try:
        status = os.statvfs(_SHARED_MEMORY)
    except OSError as error:
        return f"{_SHARED_MEMORY} cannot be looked at: {error}"
    free = status.f_bavail * status.f_frsize
    if needed <= free:
        return None
    return (
        f"{_SHARED_MEMORY} has {free / 2**20:.0f} MiB free, and the expert weights of this host's "
        f"ranks need {needed / 2**20:.0f} (in a container, its --shm-size)"
    )


def bytes_to_share(layers: Iterable[Iterable[torch.Tensor]]) -> int:
    """Count the bytes that `share` would move into shared memory."""
    storages: Iterator[torch.UntypedStorage] = iter(storages_of(layers).values())
    return sum(one.nbytes() for one in storages if one.device.type == "cpu" and not one.is_shared())


def _handle(storage: torch.UntypedStorage, device: str) -> Any:
    if device == "cuda":
        return storage._share_cuda_()  # type: ignore[no-untyped-call]
    if device == "cpu":
        return storage._share_fd_cpu_()
    raise SharingError(f"PyTorch shares no memory of a device of type {device}")


def _open(handle: Any, shared: SharedWeights, device: torch.device) -> torch.UntypedStorage:
    storages: Any = torch.UntypedStorage
    opened: torch.UntypedStorage
    if shared.device == "cuda":
        opened = storages._new_shared_cuda(device.index, *handle[1:])
        return opened
    file, size = handle
    if size == 0:
        opened = storages(0)
        return opened
    # `_new_shared_fd_cpu` keeps a descriptor open for each storage of each peer: of 61 layers and 7
    # peers more than the 1024 that a process may have unless somebody raises its limit.
    opened = storages.from_file(f"/proc/{shared.process}/fd/{file}", True, size)
    return opened


def _view(one: SharedTensor, storage: torch.UntypedStorage, device: torch.device) -> torch.Tensor:
    empty = torch.empty(0, dtype=one.dtype, device=device)
    return empty.set_(storage, one.offset, one.shape, one.strides)
