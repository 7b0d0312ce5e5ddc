# SPDX-License-Identifier: Apache-2.0
"""The switch interval of a process gets shorter if it is asked to, and never longer."""

import sys
from collections.abc import Iterator

import pytest

from vllm_eplb_plugin.engine.switch_interval import limit_switch_interval


@pytest.fixture(autouse=True)
def _interval_of_5_ms() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.005)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize(
    ("milliseconds", "then"), [(0.5, 0.0005), (5, 0.005), (80, 0.005), (0, 0.005), (None, 0.005)]
)
def test_the_switch_interval_is_never_made_longer(milliseconds: float | None, then: float) -> None:
    limit_switch_interval(milliseconds)
    assert sys.getswitchinterval() == pytest.approx(then)
