# SPDX-License-Identifier: Apache-2.0
"""What status tells of as the policy, while a placement is carried out at once."""

from types import SimpleNamespace
from typing import Any

import pytest

from vllm_eplb_plugin.engine import state_hooks, wanted_placement
from vllm_eplb_plugin.settings import Settings


def test_it_stays_the_one_that_was_set(monkeypatch: pytest.MonkeyPatch) -> None:
    session: Any = SimpleNamespace(planner=None, wanted=None, settings=Settings())
    for module in (state_hooks, wanted_placement):
        monkeypatch.setattr(module, "session_of", lambda _: session)
    seen: list[Any] = []
    state = SimpleNamespace(
        model_states={},
        is_async=True,
        rearrange=lambda: seen.extend([session.wanted, session.policy]),
    )
    own = SimpleNamespace(rebalance_experts=None)
    guarded: Any = state_hooks._override_policy(None)
    guarded.fset(state, own)
    wanted_placement.rearrange_to(state, [])
    assert seen[0] not in (None, own) and seen[1] is own
    assert session.wanted is None and session.policy is own and state.is_async
