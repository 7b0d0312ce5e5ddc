# SPDX-License-Identifier: Apache-2.0
"""What vLLM raises on the thread that runs the model ends what is under way, and is raised."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vllm_eplb_plugin.engine.followed import Moved
from vllm_eplb_plugin.engine.session import Session
from vllm_eplb_plugin.engine.state_hooks import OVERRIDES
from vllm_eplb_plugin.observe.delivery import flush_all
from vllm_eplb_plugin.observe.identity import ModelId, Source
from vllm_eplb_plugin.settings import Settings


@pytest.mark.parametrize(
    ("name", "so"),
    [("step", "do not go on serving"), ("drain_async", "What was committed is whole")],
)
def test_an_error_is_the_outcome_of_what_is_under_way(name: str, so: str, tmp_path: Path) -> None:
    def original(*_: Any) -> None:
        raise RuntimeError("a peer is gone")

    session = Session(Settings(events_dir=tmp_path), Source(0, 0, 0))
    session.rearrangements.start("async", [Moved(ModelId("model", 0), [1])])
    state = SimpleNamespace(is_async=False)
    session.attach(state)
    [hook] = [one for one in OVERRIDES if one.target.endswith(f":EplbState.{name}")]
    with pytest.raises(RuntimeError, match="a peer is gone"):
        hook.replace(original)(state)
    assert session.rearrangements.outcomes == {"failed": 1}
    assert flush_all(10)
    told = (tmp_path / "rank0.jsonl").read_text()
    assert "RuntimeError: a peer is gone. " in told and so in told
