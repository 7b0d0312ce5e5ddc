# SPDX-License-Identifier: Apache-2.0
"""Pinned host memory in which a device finds placements without making the host wait."""

import ctypes

import numpy as np
import torch


class Staging:
    """A staging area has places for a placement, taken in turn and allocated once.

    What was queued reads its place when the device gets to it, so a place may be written again
    only after that. One event stands for each half of the places: the host waits only when all
    that was queued since a whole half ago is still queued.
    """

    def __init__(
        self, shape: tuple[int, ...], dtype: torch.dtype, device_type: str, half: int
    ) -> None:
        """Allocate twice ``half`` places of a shape."""
        memory = torch.empty((2 * half, *shape), dtype=dtype, pin_memory=True)
        self._places = list(memory.numpy())
        self._addresses: list[int] = [place.data_ptr() for place in memory]
        self._memory = memory
        self._bytes = memory[0].nbytes
        self._half = half
        self._read = [torch.Event(device_type) for _ in range(2)]
        self._next = 0

    def put(self, new: torch.Tensor) -> int:
        """Take a place.

        Args:
            new: On the CPU; free to change when this returns.

        Returns:
            The place's address. Call `queued` when what reads it is on its stream.
        """
        if self._next % self._half == 0:
            self._read[self._next // self._half].synchronize()  # at once if never recorded
        address = self._addresses[self._next]
        if new.dtype is self._memory.dtype and new.is_contiguous():
            ctypes.memmove(address, new.data_ptr(), self._bytes)
        else:
            np.copyto(self._places[self._next], new.numpy(), casting="unsafe")
        return address

    def queued(self) -> None:
        """Note that the last place's reader is on the current stream."""
        self._next += 1
        if self._next % self._half == 0:
            self._read[self._next // self._half - 1].record()
            self._next %= 2 * self._half
