# SPDX-License-Identifier: Apache-2.0
"""Overrides of what a worker is asked for between two steps of EPLB: a forward pass, or its end."""

import functools
from collections.abc import Callable
from typing import Any

from vllm_eplb_plugin.engine.ending import end
from vllm_eplb_plugin.engine.session import session_of
from vllm_eplb_plugin.engine.weight_updates import state_of
from vllm_eplb_plugin.overrides.override import Override

_Method = Callable[..., Any]


def _override_forward(original: _Method) -> _Method:
    @functools.wraps(original)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        if (state := state_of(self)) is None:
            return original(self, *args, **kwargs)
        board = session_of(state).boards.model
        board.enter("forward")
        try:
            return original(self, *args, **kwargs)
        finally:
            board.enter("idle")

    return forward


def _override_shutdown(original: _Method) -> _Method:
    @functools.wraps(original)
    def shutdown(self: Any) -> None:
        if (state := state_of(self)) is not None:
            end(state)
        original(self)

    return shutdown


_WORKER = "vllm.v1.worker.gpu_worker:Worker"

OVERRIDES = (
    *(
        Override(
            target=f"{_WORKER}.{name}",
            signature=signature,
            kind="hook",
            replace=_override_forward,
            fixes="A rank that stands still in a forward pass looks like one that has nothing to "
            "do.",
            delete_when="vLLM tells which engine keeps the others waiting.",
        )
        for name, signature in (
            ("execute_model", "(self, scheduler_output)"),
            ("execute_dummy_batch", "(self)"),
            ("sample_tokens", "(self, grammar_output)"),
        )
    ),
    Override(
        target=f"{_WORKER}.shutdown",
        signature="(self)",
        kind="hook",
        replace=_override_shutdown,
        fixes="The async worker is still running when the interpreter and the groups that it uses "
        "are taken down.",
        delete_when="vLLM ends its async worker (vLLM #56854).",
    ),
)
