# SPDX-License-Identifier: Apache-2.0
"""A fault that breaks one rank strikes there, then, and once."""

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from vllm_eplb_plugin.fault_settings import FaultOptions, fault_problem
from vllm_eplb_plugin.faults.strike import Strike


class Attached:
    """A strike that has learnt of a session."""

    def __init__(self, rank: int = 1) -> None:
        self.strike, self.rearrangements = Strike(), SimpleNamespace(number=0)
        settings = SimpleNamespace(fault="transfer_fails", fault_when=FaultOptions())
        source = SimpleNamespace(rank=rank)
        session = SimpleNamespace(
            settings=settings, source=source, rearrangements=self.rearrangements
        )
        self.session: Any = session
        self.strike.override().replace(lambda *_: None)(session, object())

    def layers(self, rearrangement: int, *layers: object) -> list[bool]:
        self.rearrangements.number = rearrangement
        return [self.strike.in_layer(2, layer) is not None for layer in layers]


def test_it_strikes_in_the_second_layer_of_the_second_rearrangement_and_never_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    attached = Attached()
    with caplog.at_level(logging.WARNING, "vllm.eplb_plugin"):
        assert attached.layers(1, "a", "b", "c") == [False] * 3
        assert attached.layers(2, "a", "a", "b", "b", "c") == [False, False, True, False, False]
        assert attached.layers(3, "a", "b") == [False] * 2
    (told,) = caplog.messages
    assert told.startswith(
        "EPLB breaks as ordered: transfer_fails on EP rank 1, in rearrangement 2"
    )


def test_it_waits_for_a_rearrangement_in_which_it_can() -> None:
    attached = Attached()
    assert attached.layers(2, "a") == [False]
    assert attached.layers(3, "a", "b") == [False, True]


def test_it_spares_other_ranks_and_memory_that_is_profiled() -> None:
    attached = Attached(rank=0)
    assert attached.layers(2, "a", "b") == [False] * 2
    assert Strike().once() is None


def test_what_is_slow_is_so_until_the_rearrangement_ends() -> None:
    attached = Attached()
    seen = []
    for number in (1, 2, 2, 3):
        attached.rearrangements.number = number
        seen.append(attached.strike.throughout() is not None)
    assert seen == [False, True, True, False]


def test_another_state_of_the_same_process_is_struck_too() -> None:
    attached = Attached()
    assert attached.layers(2, "a", "b") == [False, True]
    attached.strike.override().replace(lambda *_: None)(attached.session, object())
    assert attached.layers(2, "a", "b") == [False, True]


def test_only_faults_of_the_async_worker_need_one() -> None:
    refused = ["worker_raises", "worker_hangs", "worker_slow"]
    assert all(fault_problem(fault, False) and not fault_problem(fault, True) for fault in refused)  # type: ignore[arg-type]
    assert fault_problem("transfer_fails", False) is None
    assert fault_problem(None, False) is None
