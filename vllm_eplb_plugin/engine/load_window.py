# SPDX-License-Identifier: Apache-2.0
"""Tokens of each logical expert, counted in the step that caused them.

vLLM keeps a window of physical loads and maps all of it by the placement at the moment of planning
(``EplbState.rearrange``): what was counted before a commit is credited to other experts.
"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Span:
    """How much a load window holds, and how finely."""

    parts: int
    steps: int
    """Engine steps of each part."""

    def __post_init__(self) -> None:
        if self.parts < 1 or self.steps < 1:
            raise ValueError(f"a load window of {self.parts} parts of {self.steps} steps")


def span_of(window_steps: int, part_steps: int | None = None) -> Span:
    """Divide vLLM's window into parts; the last may reach beyond.

    Args:
        window_steps: Of vLLM's window.
        part_steps: Of a part: there are two at least, because the newest has only just begun when
            a look at the one before is decided. None: of the eighth part of the window.
    """
    if part_steps is None:
        steps = -(-window_steps // 8)
        return Span(-(-window_steps // steps), steps)
    return Span(max(2, -(-window_steps // part_steps)), part_steps)


class LoadWindow:
    """A load window holds the last parts of one model's load on this rank, on its device."""

    def __init__(self, span: Span, layers: int, experts: int, device: torch.device) -> None:
        self.span = span
        self._parts = torch.zeros((span.parts, layers, experts), dtype=torch.int32, device=device)
        self._number = 0
        """Of the newest part."""

    def step(self, step: int, physical_load: torch.Tensor | None, p2l: torch.Tensor) -> None:
        """Count one step; the host does not wait.

        Args:
            step: Counted from 1, alike on all ranks.
            physical_load: ``[layers, slots]`` int32, tokens of each slot in this step; None: there
                is nothing to count.
            p2l: ``[layers, slots]``, the placement that the step was made with.
        """
        number = (step - 1) // self.span.steps
        while self._number < number:
            self._number += 1
            self._parts[self._number % self.span.parts].zero_()
        if physical_load is not None:
            self._newest.scatter_add_(1, p2l.long(), physical_load)

    def clear(self) -> None:
        """Forget all loads."""
        self._parts.zero_()

    @property
    def _newest(self) -> torch.Tensor:
        return self._parts[self._number % self.span.parts]

    def newest(self) -> torch.Tensor:
        """Copy the newest part, int64 ``[layers, logical]``."""
        return self._newest.long()

    def parts(self, last: int | None = None) -> torch.Tensor:
        """Copy the last parts, or all, int64 ``[parts, layers, logical]``, the newest last."""
        ordered = self._parts.roll(-1 - self._number % self.span.parts, dims=0)
        return (ordered if last is None else ordered[-last:]).long()


class HostCopy:
    """A host copy is on its way from the device; the thread that made it does not wait."""

    def __init__(self, tensor: torch.Tensor) -> None:
        """Start to copy; ``tensor`` is not written afterwards, or is on the CPU and copied now."""
        self._copy = tensor.clone() if tensor.is_cpu else tensor.to("cpu", non_blocking=True)
        self._arrived: torch.Event | None = None
        if not tensor.is_cpu:
            self._arrived = torch.Event(tensor.device.type)
            self._arrived.record()

    def get(self) -> torch.Tensor:
        """Wait for it; any thread may."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._copy
