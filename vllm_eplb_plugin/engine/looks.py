# SPDX-License-Identifier: Apache-2.0
"""Looks at what is served, to plan when that is due: between vLLM's intervals, or not at one.

Every so many steps, ranks add up the load of these steps; a fixed number of steps later, all read
the sum, decide alike, and set vLLM's own step counter. So the host waits for no number.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch.distributed import ProcessGroup, Work, all_reduce

from vllm_eplb_plugin.engine.load_window import HostCopy, LoadWindow
from vllm_eplb_plugin.planning.triggers import Reason, Rule, Watch
from vllm_eplb_plugin.planning_settings import TriggerOptions

_LATER = 4
"""Engine steps after which a sum has long been on the host; fewer than between two looks."""


@dataclass(frozen=True)
class _Seen:
    """What was served of one model, on its way to the host."""

    watch: Watch
    work: Work | None
    load: torch.Tensor | HostCopy
    """``[layers, logical]``, of all ranks once ``work`` is done."""
    placement: HostCopy

    def look(self, num_ranks: int) -> Reason | None:
        """Look at it, once all of it is there."""
        if self.work is not None:
            self.work.wait()
        load = self.load.get() if isinstance(self.load, HostCopy) else self.load
        placement = self.placement.get().long().numpy()
        return self.watch.look(load.double().numpy(), placement, num_ranks)


class Looks:
    """The looks of one `EplbState`, at all of its models."""

    def __init__(self, options: TriggerOptions) -> None:
        self._options = options
        self._watches: dict[int, Watch] = {}
        self._seen: list[_Seen] = []
        self._due = 0
        self._rearranged = 0
        """In which step a rearrangement started last."""

    def start_anew(self) -> None:
        """Forget all that was seen, on all ranks together."""
        self._watches.clear()
        self._seen.clear()

    def watch(self, model_index: int) -> Watch:
        """Find what is remembered of a model."""
        rule = Rule(self._options.below, self._options.changed)
        return self._watches.setdefault(model_index, Watch(rule))

    def rearranging(self, step: int) -> None:
        """Take notice of a rearrangement: what was seen before it is of no use after it."""
        self._seen, self._rearranged = [], step

    def start(
        self,
        step: int,
        windows: Iterable[tuple[int, LoadWindow, torch.Tensor]],
        group: ProcessGroup,
    ) -> None:
        """Start a look if one is due in this step; all ranks call together.

        Args:
            step: Counted from 1, alike on all ranks.
            windows: Each model's index, load window and placement ``[layers, slots]``.
            group: The device group of the EP ranks.
        """
        if step % self._options.check_steps == 0:
            self._seen = [self._see(*window, group) for window in windows]
            self._due = step + _LATER

    def _see(
        self, index: int, window: LoadWindow, placement: torch.Tensor, group: ProcessGroup
    ) -> _Seen:
        load = window.newest()
        work = all_reduce(load, group=group, async_op=True)
        if load.is_cpu or work is None:
            return _Seen(self.watch(index), work, load, HostCopy(placement))
        work.wait()  # the stream does, not the host
        return _Seen(self.watch(index), None, HostCopy(load), HostCopy(placement))

    def are_due(self, step: int) -> bool:
        """Say whether what was seen last is on the host by now, and new."""
        return bool(self._seen) and step >= self._due

    def decide(self, step: int, num_ranks: int) -> Reason | None:
        """Decide by what was seen last whether to plan now."""
        seen, self._seen = self._seen, []
        reasons = [one.look(num_ranks) for one in seen]
        if "changed_load" in reasons:
            return "changed_load"
        is_early = step - self._rearranged < self._options.min_steps
        return "balancedness" if "balancedness" in reasons and not is_early else None

    @property
    def is_balanced(self) -> bool:
        """Whether every model was balanced when it was looked at last: no plan is needed."""
        return bool(self._watches) and all(one.is_balanced for one in self._watches.values())
