# SPDX-License-Identifier: Apache-2.0
"""Overrides of what replaces a model's weights while it serves, or writes them out."""

import functools
from collections.abc import Callable
from typing import Any

from vllm.distributed.eplb.eplb_state import EplbState

from vllm_eplb_plugin.engine.first_placement import put_back
from vllm_eplb_plugin.engine.session import session_of
from vllm_eplb_plugin.overrides.override import Override

_Method = Callable[..., Any]


def follow_load_weights(state: Any, model: Any) -> None:
    """Put experts back before somebody calls ``load_weights`` of a model that EPLB moves.

    Worker extensions of reinforcement learning do, once for each bucket of weights. The first call
    puts the experts back; none of them moves until the next engine steps.
    """
    original = getattr(model, "load_weights", None)
    if original is None:
        return

    @functools.wraps(original)
    def load_weights(*args: Any, **kwargs: Any) -> Any:
        _prepare(state, "load_weights")
        return original(*args, **kwargs)

    model.load_weights = load_weights


def state_of(owner: Any) -> Any:
    """Find the `EplbState` of a worker or a model runner; None: it has none of the plugin's."""
    state = getattr(getattr(owner, "model_runner", owner), "eplb_state", None)
    return state if isinstance(state, EplbState) and state.model_states else None


def _prepare(state: Any, request: str) -> None:
    put_back(state, request)
    session_of(state).weights_replaced()


def _before_new_weights(original: _Method) -> _Method:
    @functools.wraps(original)
    def replace(self: Any, *args: Any, **kwargs: Any) -> Any:
        if (state := state_of(self)) is not None:
            _prepare(state, original.__name__)
        return original(self, *args, **kwargs)

    return replace


def _before_writing_out(original: _Method) -> _Method:
    @functools.wraps(original)
    def save(self: Any, *args: Any, **kwargs: Any) -> Any:
        if (state := state_of(self)) is not None:
            put_back(state, original.__name__)
        return original(self, *args, **kwargs)

    return save


_WORKER = "vllm.v1.worker.gpu_worker:Worker"
_RUNNER = "vllm.v1.worker.gpu_model_runner:GPUModelRunner"
_RUNNER_V2 = "vllm.v1.worker.gpu.model_runner:GPUModelRunner"
_RELOAD = "(self, weights_iterator=None, weights_path=None, is_checkpoint_format=True)"
_NEW_WEIGHTS = (
    (f"{_RUNNER}.reload_weights", _RELOAD, ""),
    # It calls V1's, whose module is not there yet when an `EplbState` is made.
    (f"{_RUNNER_V2}.reload_weights", "(self, *args, **kwargs)", ">=0.22,<0.32"),
    (f"{_RUNNER_V2}.reload_weights", _RELOAD, ">=0.32"),
    (f"{_WORKER}.start_weight_update", "(self, is_checkpoint_format=True)", ">=0.21,<0.25"),
    (f"{_WORKER}.start_weight_update", "(self)", ">=0.25"),
    (f"{_WORKER}.start_draft_weight_update", "(self)", ">=0.26"),
    (f"{_WORKER}.update_weights", "(self, update_info)", ""),
    (f"{_WORKER}.finish_weight_update", "(self)", ">=0.21"),
)
_WRITING_OUT = (
    (f"{_WORKER}.save_sharded_state", "(self, path, pattern=None, max_size=None)"),
    (f"{_WORKER}.save_tensorized_model", "(self, tensorizer_config)"),
)

OVERRIDES = (
    *(
        Override(
            target=target,
            signature=signature,
            kind="hook",
            replace=_before_new_weights,
            fixes="Weights go where the first placement has the experts: once experts have moved, "
            "slots hold the weights of other experts, and answers are wrong without a word "
            "(vLLM #55228).",
            delete_when="vLLM loads weights by the placement in force, or puts the first one back.",
            releases=releases,
        )
        for target, signature, releases in _NEW_WEIGHTS
    ),
    *(
        Override(
            target=target,
            signature=signature,
            kind="hook",
            replace=_before_writing_out,
            fixes="Weights are written out by slot and loaded as if no expert had moved: a server "
            "that loads them answers wrong.",
            delete_when="vLLM writes out weights by logical expert.",
        )
        for target, signature in _WRITING_OUT
    ),
)
