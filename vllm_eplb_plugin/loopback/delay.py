# SPDX-License-Identifier: Apache-2.0
"""Transfers of weights made slower than the model, to see that nobody reads what is not there."""

import functools
import inspect
import time
from collections.abc import Callable
from typing import Any

import torch

from vllm_eplb_plugin.install import Override

_Function = Callable[..., Any]

_CYCLES_A_MILLISECOND = 1_700_000
"""Of an H100's clock under load: a delay on another GPU is about as long as it says."""

_LAYER = (
    "(old_layer_indices, new_layer_indices, expert_weights, expert_weights_buffer, ep_group, "
    "{}is_profile=False, {}=None, rank_mapping=None{})"
)
_SIGNATURES = {
    "<0.20": _LAYER.format("", "cuda_stream", ""),
    ">=0.20,<0.23": _LAYER.format("communicator, ", "cuda_stream", ""),
    ">=0.23,<0.31": _LAYER.format("communicator, ", "cuda_stream", ", layer_idx=0"),
    ">=0.31,<0.32": _LAYER.format("communicator, ", "stream", ", layer_idx=0"),
    ">=0.32": _LAYER.format(
        "communicator, ",
        "stream",
        ", layer_idx=0, enable_migration_batching=False, migration_batches=None",
    ),
}


def delay_overrides(milliseconds: float) -> tuple[Override, ...]:
    """Make every layer's transfer in async mode take so much longer, on every release.

    In sync mode the model waits for a transfer anyway.
    """
    return tuple(
        Override(
            target="vllm.distributed.eplb.async_worker:transfer_layer",
            signature=signature,
            replace=functools.partial(_delayed, milliseconds),
            fixes="Nothing: the stream on which a layer is sent is busy before and after it.",
            delete_when="Never.",
            releases=releases,
        )
        for releases, signature in _SIGNATURES.items()
    )


def _delayed(milliseconds: float, original: _Function) -> _Function:
    def busy(keywords: dict[str, Any]) -> None:
        # Half of it after: the host is told that the layer is there while its stream still works.
        _keep_busy(keywords.get("stream", keywords.get("cuda_stream")), milliseconds / 2)

    if inspect.iscoroutinefunction(original):

        @functools.wraps(original)
        async def transfer_layer_later(*args: Any, **kwargs: Any) -> Any:
            busy(kwargs)
            result = await original(*args, **kwargs)
            busy(kwargs)
            return result

        return transfer_layer_later

    @functools.wraps(original)
    def transfer_layer(*args: Any, **kwargs: Any) -> Any:
        busy(kwargs)
        result = original(*args, **kwargs)
        busy(kwargs)
        return result

    return transfer_layer


def _keep_busy(stream: Any, milliseconds: float) -> None:
    if isinstance(stream, torch.cuda.Stream):
        with torch.cuda.stream(stream):
            cycles = int(milliseconds * _CYCLES_A_MILLISECOND)
            torch.cuda._sleep(cycles)  # type: ignore[no-untyped-call]
    else:
        time.sleep(milliseconds / 1000)
