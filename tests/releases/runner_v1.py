# SPDX-License-Identifier: Apache-2.0
"""The release's model runner V1 with nothing behind it: what it calls answers, and does nothing."""

import contextlib
import inspect
import typing
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

_INSIDE = (
    "_update_states",
    "synchronize_input_prep",
    "_prepare_inputs",
    "_determine_batch_execution_and_padding",
    "_allow_microbatching",
    "_get_slot_mappings",
    "_build_attention_metadata",
    "_preprocess",
    "_prepare_padding_mask",
    "maybe_get_kv_connector_output",
    "_get_model_forward_context",
    "_sync_device",
)
"""What `execute_model` calls before and after the model runs, on some releases."""


def bare_runner(config: Any, state: Any, forward: Any, is_last_stage: bool = False) -> Any:
    """Make a ``GPUModelRunner`` of one request.

    Args:
        config: A `VllmConfig`.
        state: The `EplbState` that it steps.
        forward: What its model answers.
        is_last_stage: Whether it is the last of its pipeline.
    """
    from vllm.v1.worker import gpu_model_runner

    class Bare(gpu_model_runner.GPUModelRunner):  # type: ignore[misc]
        def __init__(self) -> None:
            for name in _INSIDE:
                if (method := getattr(gpu_model_runner.GPUModelRunner, name, None)) is not None:
                    setattr(self, name, MagicMock(return_value=_answer(method)))
            self._model_forward = MagicMock(return_value=forward)

        def __getattr__(self, name: str) -> Any:
            setattr(self, name, MagicMock(name=name))
            return getattr(self, name)

    stage = SimpleNamespace(
        is_first_rank=True, is_last_rank=is_last_stage, world_size=2, ranks=[0, 1]
    )
    gpu_model_runner.get_pp_group = lambda: stage
    gpu_model_runner.set_forward_context = lambda *_, **__: contextlib.nullcontext()
    runner = Bare()
    runner.parallel_config, runner.eplb_state = config.parallel_config, state
    nothing = ("speculative_config", "execute_model_state", "kv_connector_output")
    off = (
        "eep_eplb_suppressed",
        "routed_experts_initialized",
        "broadcast_pp_output",
        "use_async_scheduling",
        "use_aux_hidden_state_outputs",
        "calculate_kv_scales",
        "cascade_attn_enabled",
    )
    vars(runner).update(dict.fromkeys(nothing) | dict.fromkeys(off, False))
    runner.is_pooling_model = is_last_stage
    runner.input_batch.num_reqs, runner.input_batch.req_ids = 1, ["request"]
    runner.input_batch.pooling_params = {"request": None}
    runner.cache_config = SimpleNamespace(mamba_cache_mode="none", kv_sharing_fast_prefill=False)
    runner.kv_cache_config.kv_cache_groups = []
    return runner


def one_token() -> Any:
    """A scheduler's output of one token."""
    scheduled = MagicMock(total_num_scheduled_tokens=1, num_scheduled_tokens={"request": 1})
    scheduled.scheduled_encoder_inputs = scheduled.scheduled_spec_decode_tokens = {}
    return scheduled


def no_token() -> Any:
    """A scheduler's output of nothing to do."""
    return MagicMock(total_num_scheduled_tokens=0, num_scheduled_tokens={})


def _answer(method: Any) -> Any:
    """As many values as it is said to return."""
    said = inspect.signature(method).return_annotation
    parts = typing.get_args(said) if typing.get_origin(said) is tuple else ()
    if method.__name__ == "_preprocess":
        return (None, None, None, None, {}, None)
    if method.__name__ == "_determine_batch_execution_and_padding":
        return (None, SimpleNamespace(num_tokens=1, num_reqs=1), False, None, None)
    return tuple(MagicMock() for _ in parts) if parts else MagicMock()
