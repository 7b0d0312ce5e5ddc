# SPDX-License-Identifier: Apache-2.0
"""Make a placement visible: one map to the device, the other two derived there, in place."""

from typing import Any

import torch

from vllm_eplb_plugin.placement.maps import EMPTY_SLOT, derive_logical_maps


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
    l2p, counts = derive_logical_maps(physical_to_logical_map, *logical_to_physical_map.shape[-2:])
    logical_to_physical_map.copy_(l2p)
    logical_replica_count.copy_(counts)


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


def narrow_logical_to_physical_map(model_state: Any, width: int) -> None:
    """Give a model's layers an l2p of ``width`` columns; call it before any graph is captured.

    vLLM always allocates 1024 columns, 122 MB for DeepSeek-V3, of which redundant experts + 1
    are ever used.

    Raises:
        RuntimeError: A layer still reads another tensor.
    """
    model = model_state.model
    narrow = model_state.logical_to_physical_map.new_full(
        (model.num_moe_layers, model.num_logical_experts, width), EMPTY_SLOT
    )
    for index, layer in enumerate(model.moe_layers):
        layer.set_eplb_state(
            moe_layer_idx=index,
            expert_load_view=model_state.expert_load_pass_buffer,
            logical_to_physical_map=narrow,
            logical_replica_count=model_state.logical_replica_count,
        )
        read = layer.eplb_state.logical_to_physical_map
        if read.data_ptr() != narrow[index].data_ptr():
            raise RuntimeError(
                f"MoE layer {index} ({type(layer).__name__}) of {model_state.model_name} does not "
                "read the map given to its set_eplb_state: EPLB commits would not reach it"
            )
    model_state.logical_to_physical_map = narrow
    commit_model(model_state, model_state.physical_to_logical_map)
