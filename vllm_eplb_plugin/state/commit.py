# SPDX-License-Identifier: Apache-2.0
"""Make a placement visible: one map to the device, the other two derived there, in place."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch

from vllm_eplb_plugin.placement.derive import derive_into


def commit(
    new: torch.Tensor,
    physical_to_logical_map: torch.Tensor,
    logical_to_physical_map: torch.Tensor,
    logical_replica_count: torch.Tensor,
) -> None:
    """Write a placement into the tensors that the model reads; their addresses stay.

    The host neither waits for the device nor computes anything. Work is queued on the current
    stream, which is the one the model runs on.

    Args:
        new: ``[layers, physical]`` or one layer's ``[physical]``, validated.
        physical_to_logical_map: Like ``new``.
        logical_to_physical_map: ``[..., logical, width]``.
        logical_replica_count: ``[..., logical]``.

    Raises:
        ValueError: The number of slots is not that of the placement in force.
    """
    if new.shape != physical_to_logical_map.shape:
        raise ValueError(
            f"a placement of shape {list(new.shape)} cannot be committed over one of shape "
            f"{list(physical_to_logical_map.shape)}: the number of slots must stay"
        )
    if new.device.type == "cpu" and physical_to_logical_map.device.type != "cpu":
        new = new.pin_memory()
    physical_to_logical_map.copy_(new, non_blocking=True)
    derive_into(physical_to_logical_map, logical_to_physical_map, logical_replica_count)


def commit_model(model_state: Any, new: torch.Tensor) -> None:
    """Commit ``[layers, physical]`` to every layer of a vLLM ``EplbModelState``."""
    commit(
        new,
        model_state.physical_to_logical_map,
        model_state.logical_to_physical_map,
        model_state.logical_replica_count,
    )


def commit_layer(model_state: Any, new: torch.Tensor, layer: int) -> None:
    """Commit ``[physical]`` to one MoE layer of a vLLM ``EplbModelState``."""
    commit(
        new,
        model_state.physical_to_logical_map[layer],
        model_state.logical_to_physical_map[layer],
        model_state.logical_replica_count[layer],
    )


def resize_placement(model_state: Any, slots: int) -> None:
    """Make room for a placement of another number of slots: elastic EP grows and shrinks."""
    current = model_state.physical_to_logical_map
    if current.shape[1] == slots:
        return
    if hasattr(model_state, "physical_to_logical_map_buffer"):  # 0.30 and later
        model_state.physical_to_logical_map = model_state.physical_to_logical_map_buffer[:, :slots]
    else:
        model_state.physical_to_logical_map = current.new_empty((current.shape[0], slots))


@contextlib.contextmanager
def narrow_logical_to_physical_map(
    model: Any, width: int | None
) -> Iterator[Callable[[], torch.Tensor]]:
    """While vLLM adds a model, hand its layers an l2p of ``width`` columns instead of 1024.

    vLLM's l2p takes 122 MB for DeepSeek-V3, and no more than redundant experts + 1 columns are
    ever used. Nothing has captured an address yet.

    Args:
        model: A vLLM `MixtureOfExperts`.
        width: Columns; None leaves l2p as it is.

    Yields:
        What gives the l2p that the layers read, once the model was added.
    """
    handed: list[torch.Tensor] = []
    original = model.set_eplb_state

    def set_eplb_state(
        expert_load_view: torch.Tensor,
        logical_to_physical_map: torch.Tensor,
        logical_replica_count: torch.Tensor,
    ) -> None:
        handed.append(logical_to_physical_map[..., :width].contiguous())
        original(expert_load_view, handed[-1], logical_replica_count)

    model.set_eplb_state = set_eplb_state
    try:
        yield lambda: handed[-1]
    finally:
        del model.set_eplb_state
