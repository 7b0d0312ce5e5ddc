# SPDX-License-Identifier: Apache-2.0
"""A layer whose experts a rank pulls from the memory of ranks on its host.

Nobody sends and nobody receives: copies go from the peer's weights into the rows of vLLM's transfer
buffer, on the transfer's stream. Between GPUs that is work for a copy engine, which takes no
multiprocessor from the model.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from vllm_eplb_plugin.transfer.layer_weights import buffers_of
from vllm_eplb_plugin.transfer.pulls import Pull, Slots, plan_pulls, sent_by_message
from vllm_eplb_plugin.transfer.received import Received
from vllm_eplb_plugin.transfer.surviving import LayerFailedError

FIXES = (
    "By default, where NIXL is not installed, experts go row after row through the host and "
    "Python: at 0.7 GB/s between two H200 that copy 318 (docs/benchmarks)."
)
"""Of overrides of ``move_to_buffer``, beside what else they fix."""


@dataclass(frozen=True)
class PeerLayer:
    """One layer's expert weights on every rank whose memory this rank reads."""

    ep_rank: int
    tensors: Mapping[int, Sequence[torch.Tensor]]
    """By EP rank, this one among them: each ``[slots, ...]``."""
    hosts: Sequence[int]
    """Of every EP rank a number: ranks with the same number read each other."""
    arrive: Callable[[BaseException | None], None]
    """Called when this rank has what it pulls, or with the reason why it has not; returns when its
    weights may be written, because no other rank reads what this transfer needs of them."""

    def fill(self, old: Slots, new: Slots, buffers: Sequence[torch.Tensor]) -> None:
        """Queue the copies of every row that a rank of this host has, on the current stream.

        Args:
            old: ``[physical]``, the placement in force.
            new: ``[physical]``, the placement to come.
            buffers: One for each tensor, a row for each slot.
        """
        slots = len(old) // len(self.hosts)
        for pull in plan_pulls(old, new, self.ep_rank, slots, self.tensors):
            for source, buffer in zip(self.tensors[pull.rank], buffers, strict=True):
                _copy(pull, source, buffer)


def _copy(pull: Pull, source: torch.Tensor, buffer: torch.Tensor) -> None:
    sources = source[pull.source : pull.source + pull.rows]
    rows = buffer[pull.row : pull.row + pull.rows]
    if sources.is_contiguous() and rows.is_contiguous():
        rows.copy_(sources, non_blocking=True)
        return
    # Slots apart from each other at once are copied by a kernel, one by one by a copy engine.
    for slot, row in zip(sources, rows, strict=True):
        row.copy_(slot, non_blocking=True)


def pull_from_peers(original: Callable[..., Any], before_0_20: bool = False) -> Callable[..., Any]:
    """Let ``move_to_buffer`` of vLLM, which is called with keywords only, pull what it can.

    Experts that no rank of this host holds come through vLLM's communicator, of all ranks in the
    same layer: each knows of every other what it pulls.

    Args:
        original: vLLM's function, or what is overridden of it already.
        before_0_20: It returns a tuple, of which the last is vLLM's ``RecvMetadata``.
    """

    @functools.wraps(original)
    def call(
        *,
        num_local_experts: int,
        old_indices: Slots,
        new_indices: Slots,
        expert_weights: Any,
        expert_weights_buffers: Sequence[torch.Tensor],
        **others: Any,
    ) -> Any:
        send = functools.partial(
            original,
            num_local_experts=num_local_experts,
            old_indices=old_indices,
            expert_weights=expert_weights,
            expert_weights_buffers=expert_weights_buffers,
        )
        layer: PeerLayer | None = getattr(expert_weights, "peers", None)
        if layer is None:
            return send(new_indices=new_indices, **others)
        stream = others.get("stream", others.get("cuda_stream"))
        try:
            with _on(stream):
                buffers = buffers_of(expert_weights, expert_weights_buffers)
                layer.fill(old_indices, new_indices, buffers)
                sent = sent_by_message(old_indices, new_indices, layer.hosts)
                if not np.array_equal(sent, old_indices):
                    if "migration_batches" in others:  # planned for all that changes
                        others["migration_batches"] = None
                    send(new_indices=sent, **others)
                _wait_for_copies(expert_weights[0].device)
        except Exception as error:
            layer.arrive(error)
            raise LayerFailedError(f"{type(error).__name__}: {error}") from error
        layer.arrive(None)
        first = layer.ep_rank * num_local_experts
        mine = slice(first, first + num_local_experts)
        received = Received.of(old_indices[mine], new_indices[mine])
        return received.as_before_0_20() if before_0_20 else received

    return call


def _on(stream: Any) -> AbstractContextManager[Any]:
    # From 0.31 on it is a torch.Stream, which is no torch.cuda.Stream even on a GPU.
    if isinstance(stream, torch.Stream) and stream.device.type == "cuda":
        return torch.cuda.stream(stream)  # type: ignore[arg-type]
    return nullcontext()


def _wait_for_copies(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()
