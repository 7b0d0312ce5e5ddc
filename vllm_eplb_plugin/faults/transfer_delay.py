# SPDX-License-Identifier: Apache-2.0
"""Transfers of weights made slower than the model, to see that nobody reads what is not there."""

import functools
import inspect
import time
from collections.abc import Callable
from typing import Any

import torch

from vllm_eplb_plugin.overrides.override import Override

_Function = Callable[..., Any]

_MEASURED_CYCLES = 20_000_000

_LAYER = (
    "(old_layer_indices, new_layer_indices, expert_weights, expert_weights_buffer, ep_group, "
    "{}is_profile=False, {}=None, rank_mapping=None{})"
)
TRANSFER_SIGNATURES = {
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
"""Of ``async_worker.transfer_layer``, by releases."""


def delay_overrides(milliseconds: float) -> tuple[Override, ...]:
    """Make every layer's transfer in async mode take so much longer, on every release.

    In sync mode the model waits for a transfer anyway, and what moves a layer there is already
    overridden: by faults, and on 0.18 and 0.19 by the plugin itself.
    """
    return tuple(
        Override(
            target="vllm.distributed.eplb.async_worker:transfer_layer",
            signature=signature,
            kind="break",
            replace=functools.partial(_delayed, milliseconds),
            fixes="The stream on which a layer is sent is busy before and after it.",
            delete_when="Never.",
            releases=releases,
        )
        for releases, signature in TRANSFER_SIGNATURES.items()
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
    # From 0.31 on it is a torch.Stream, which is no torch.cuda.Stream even on a GPU.
    if isinstance(stream, torch.Stream) and stream.device.type == "cuda":
        cycles = int(milliseconds * _cycles_a_millisecond(stream.device))
        with torch.cuda.stream(stream):  # type: ignore[arg-type]
            torch.cuda._sleep(cycles)  # type: ignore[no-untyped-call]
    else:
        time.sleep(milliseconds / 1000)


@functools.cache
def _cycles_a_millisecond(device: torch.device) -> float:
    """Of a GPU's clock at its fastest, so that no delay is shorter than it says; where PyTorch does
    not tell, of the clock as it is when this is first asked."""
    rate = getattr(torch.cuda.get_device_properties(device), "clock_rate", None)
    if rate is not None:  # in kHz
        return float(rate)
    with torch.cuda.device(device):
        started, ended = (torch.Event(device, enable_timing=True) for _ in range(2))
        started.record()
        torch.cuda._sleep(_MEASURED_CYCLES)  # type: ignore[no-untyped-call]
        ended.record()
        ended.synchronize()
        return _MEASURED_CYCLES / float(started.elapsed_time(ended))
