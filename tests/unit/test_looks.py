# SPDX-License-Identifier: Apache-2.0
"""Looks at what is served, on one rank."""

import torch
import torch.distributed as dist

from vllm_eplb_plugin.engine.load_window import LoadWindow, Span
from vllm_eplb_plugin.engine.looks import Looks
from vllm_eplb_plugin.planning_settings import TriggerOptions

PLACEMENT = torch.tensor([[0, 1, 2, 3]])
EVEN, SKEWED = [10, 10, 10, 10], [40, 20, 10, 10]


class Served:
    """Looks at one model, whose two ranks' load is all here."""

    def __init__(self, group: dist.ProcessGroup, **options: float) -> None:
        self.looks = Looks(TriggerOptions.model_validate({"check_steps": 5} | options))
        self._group, self._step = group, 0
        self._window = LoadWindow(Span(2, 5), 1, 4, torch.device("cpu"))

    def serve(self, load: list[int], steps: int) -> list[tuple[int, str]]:
        """The steps in which a plan was due, and why."""
        due = []
        for _ in range(steps):
            self._step += 1
            self._window.step(self._step, torch.tensor([load]).int(), PLACEMENT)
            self.looks.start(self._step, [(0, self._window, PLACEMENT)], self._group)
            if self.looks.are_due(self._step) and (reason := self.looks.decide(self._step, 2)):
                due.append((self._step, reason))
        return due


def test_a_look_is_read_four_steps_later(group: dist.ProcessGroup) -> None:
    served = Served(group, below=0.9, min_steps=1)
    assert served.serve(EVEN, 10) == []
    assert served.looks.watch(0).served == 1.0
    assert served.looks.is_balanced
    assert served.serve(SKEWED, 10) == [(19, "balancedness")]
    assert not served.looks.is_balanced


def test_it_waits_between_two_plans_but_not_with_another_load(group: dist.ProcessGroup) -> None:
    served = Served(group, below=0.9, changed=0.2, min_steps=20)
    served.looks.rearranging(0)
    assert served.serve(SKEWED, 19) == []
    assert served.serve(SKEWED, 10) == [(24, "balancedness"), (29, "balancedness")]
    served.looks.rearranging(29)
    served.looks.watch(0).planned(torch.tensor([SKEWED]).double().numpy())
    # The first look is at one step of it only.
    assert served.serve(SKEWED[::-1], 10) == [(39, "changed_load")]


def test_what_was_seen_before_a_rearrangement_is_not_judged_after_it(
    group: dist.ProcessGroup,
) -> None:
    served = Served(group, below=0.9, min_steps=1)
    assert served.serve(SKEWED, 6) == []
    served.looks.rearranging(6)
    assert served.serve(EVEN, 6) == []
    assert served.looks.watch(0).served is None


def test_anew_it_knows_of_no_plan(group: dist.ProcessGroup) -> None:
    served = Served(group, below=0.9, min_steps=1)
    served.serve(SKEWED, 8)
    served.looks.start_anew()
    assert served.serve(EVEN, 1) == []
    assert not served.looks.is_balanced
