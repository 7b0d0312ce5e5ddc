# SPDX-License-Identifier: Apache-2.0
"""Pinned host memory through which placements reach a device without making the host wait."""

import torch


class Staging:
    """A few places for a placement, taken in turn; allocated once.

    A copy that was queued reads its place when the device gets to it, so a place may be written
    again only after that. The host waits for it in that case alone: when as many copies as there
    are places are still queued.
    """

    def __init__(self, shape: tuple[int, ...], like: torch.Tensor, places: int) -> None:
        """Allocate ``places`` of a shape, of the dtype and for the device of ``like``."""
        self._places = torch.empty((places, *shape), dtype=like.dtype, pin_memory=True).unbind()
        self._copied = [torch.Event(like.device.type) for _ in range(places)]
        self._next = 0

    def copy(self, new: torch.Tensor, target: torch.Tensor) -> None:
        """Queue a copy on the current stream.

        Args:
            new: On the CPU; free to change when this returns.
            target: On the device.
        """
        place, copied = self._places[self._next], self._copied[self._next]
        self._next = (self._next + 1) % len(self._places)
        copied.synchronize()  # returns at once if it was never recorded
        place.copy_(new)
        target.copy_(place, non_blocking=True)
        copied.record()
