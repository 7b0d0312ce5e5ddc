# SPDX-License-Identifier: Apache-2.0
"""A transfer that fails costs its rearrangement, and not the server."""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from vllm_eplb_plugin.transfer.received import Received

FIXES = (
    "An error in a transfer ends vLLM's async worker without a word, and in sync mode the server."
)
"""Of overrides of ``move_to_buffer``, beside what else they fix."""


class LayerFailedError(RuntimeError):
    """A layer's weights did not get to all ranks, and every rank knows so."""


class Carrier(Protocol):
    """Who answers for the transfers of a model."""

    @property
    def given_up(self) -> bool:
        """The rearrangement under way moves nothing any more, on any rank."""

    def carrying(self, layer: int) -> AbstractContextManager[None]:
        """Show that a layer is under way."""

    def survives(self, layer: int, error: Exception) -> bool:
        """Say whether serving can go on although a transfer failed here: then nothing of the layer
        moves, on any rank."""


def survive(original: Callable[..., Any], before_0_20: bool = False) -> Callable[..., Any]:
    """Let ``move_to_buffer`` of vLLM, which is called with keywords only, fail without harm.

    Args:
        original: vLLM's function, or what is overridden of it already.
        before_0_20: It returns a tuple, of which the last is vLLM's ``RecvMetadata``.
    """

    @functools.wraps(original)
    def call(*, num_local_experts: int, expert_weights: Any, **others: Any) -> Any:
        go_on = functools.partial(
            original, num_local_experts=num_local_experts, expert_weights=expert_weights, **others
        )
        carrier: Carrier | None = getattr(expert_weights, "carrier", None)
        if carrier is None:
            return go_on()
        if not carrier.given_up:
            layer: int = expert_weights.number
            try:
                with carrier.carrying(layer):
                    return go_on()
            except Exception as error:  # whatever a transfer raises
                if not carrier.survives(layer, error):
                    raise
        nothing = Received.nothing(num_local_experts)
        return nothing.as_before_0_20() if before_0_20 else nothing

    return call
