# SPDX-License-Identifier: Apache-2.0
"""What the overrides of vLLM 0.18 do that two gloo ranks cannot show."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from vllm_eplb_plugin.engine.v018 import OVERRIDES
from vllm_eplb_plugin.overrides.override import parameters_of

[MOVE_TO_BUFFER] = [o for o in OVERRIDES if o.target.endswith(":move_to_buffer")]


@pytest.mark.parametrize("stream", ["the transfer stream", None])
def test_experts_that_stay_are_copied_on_the_transfer_stream(
    stream: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    active: list[str | None] = [None]

    @contextlib.contextmanager
    def on_stream(stream: str) -> Iterator[None]:
        active.append(stream)
        yield
        active.pop()

    monkeypatch.setattr(torch.cuda, "stream", on_stream)

    def move_to_buffer(
        num_local_experts: int,
        old_indices: Any,
        new_indices: Any,
        expert_weights: Any,
        expert_weights_buffers: Any,
        cuda_stream: Any,
        ep_group: Any,
    ) -> tuple[str | None, str | None]:
        return active[-1], cuda_stream

    assert parameters_of(move_to_buffer) == MOVE_TO_BUFFER.signature
    replaced = MOVE_TO_BUFFER.replace(move_to_buffer)
    arguments: dict[str, Any] = {"old_indices": [0], "new_indices": [1]}
    arguments |= dict.fromkeys(("expert_weights", "expert_weights_buffers", "ep_group"))
    assert replaced(num_local_experts=1, cuda_stream=stream, **arguments) == (stream, stream)
    assert active == [None]
