# SPDX-License-Identifier: Apache-2.0
"""Overrides of where vLLM makes a placement visible, 0.19 and later; 0.18's are in `v018`."""

from typing import Any

import torch

from vllm_eplb_plugin.engine.committer import resize_placement
from vllm_eplb_plugin.engine.session import session_of
from vllm_eplb_plugin.engine.unchanged_layers import pass_over_unchanged
from vllm_eplb_plugin.overrides.override import Override
from vllm_eplb_plugin.placement.maps import validate_placement

_STATE = "vllm.distributed.eplb.eplb_state"
_ON_THE_HOST = "48 to 56 ms on the thread that runs the model, in Python over every slot."
_ON_THE_HOST_FOR_A_LAYER = "11 to 22 ms a layer on the thread that runs the model."
_UNCHECKED = "Elastic EP's new ranks take over a map unchecked, derived in Python."
_DELETE_WHEN = "vLLM derives l2p and replica counts on the device."


def commit_model(model_state: Any, new: torch.Tensor) -> None:
    """Commit ``[layers, physical]`` to every layer of a vLLM ``EplbModelState``."""
    session_of(model_state).committer_of(model_state).commit(new)


def commit_layer(model_state: Any, new: torch.Tensor, layer: int) -> None:
    """Commit ``[physical]`` to one MoE layer of a vLLM ``EplbModelState``."""
    session_of(model_state).committer_of(model_state).commit(new, layer)


def commit_all_layers(model_state: Any, new_physical_to_logical_map: torch.Tensor) -> None:
    """Stand for ``_commit_eplb_maps``: all layers of a model, sync."""
    session = session_of(model_state)
    carrier = session.carrier_of(model_state)
    with session.boards.model.during("commit"):
        resize_placement(model_state, new_physical_to_logical_map.shape[1])
        new = carrier.without_what_is_left(
            model_state.physical_to_logical_map, new_physical_to_logical_map
        )
        commit_model(model_state, new)
        session.committed(model_state, range(model_state.model.num_moe_layers), carrier.left)
    if carrier.given_up:
        session.give_up(model_state, carrier.failure or "")


def commit_one_layer(
    model_state: Any, new_physical_to_logical_map: torch.Tensor, layer: int
) -> None:
    """Stand for ``_commit_eplb_maps_for_layer`` of 0.20 and later: one layer's row, async."""
    session = session_of(model_state)
    with session.boards.model.during("commit", layer):
        commit_layer(model_state, new_physical_to_logical_map, layer)
        session.committed(model_state, range(layer, layer + 1))
    # The worker waits until vLLM tells it so, a moment later.
    is_last = layer + 1 == model_state.model.num_moe_layers
    session.boards.worker.enter("idle" if is_last else "waiting for ranks")


def _commit_one_of_all_layers(
    model_state: Any, new_physical_to_logical_map: torch.Tensor, layer: int
) -> None:
    # 0.19 hands over the whole map.
    commit_one_layer(model_state, new_physical_to_logical_map[layer], layer)
    pass_over_unchanged(model_state, layer)


def _take_over(model_state: Any, expanded_physical_to_logical: torch.Tensor) -> None:
    slots = model_state.physical_to_logical_map.shape[1]
    new = expanded_physical_to_logical[:, :slots]
    shape = (model_state.model.num_moe_layers, slots)
    experts = model_state.model.num_logical_experts
    validate_placement(new.cpu(), shape, experts, allow_empty_slots=True)
    commit_model(model_state, new)


def make_from_mapping(
    cls: Any,
    model: Any,
    model_config: Any,
    device: torch.device,
    parallel_config: Any,
    expanded_physical_to_logical: torch.Tensor,
    num_valid_physical_experts: int,
) -> Any:
    """Stand for ``EplbState.from_mapping`` before 0.29."""
    state = cls(parallel_config=parallel_config, device=device)
    state.add_model(model=model, model_config=model_config)
    state.num_valid_physical_experts = num_valid_physical_experts
    _take_over(state.model_states[model_config.compute_hash()], expanded_physical_to_logical)
    return state


def _update_mapping(
    self: Any, model_config: Any, expanded_physical_to_logical: torch.Tensor
) -> None:
    model_state = self.model_states[model_config.compute_hash()]
    _take_over(model_state, expanded_physical_to_logical)
    if hasattr(model_state, "physical_to_logical_map_buffer"):  # 0.30 and later
        model_state.physical_to_logical_map_buffer.copy_(expanded_physical_to_logical)
        model_state.expert_load_pass.zero_()


OVERRIDES = (
    Override(
        target=f"{_STATE}:_commit_eplb_maps",
        signature="(model_state, new_physical_to_logical_map)",
        kind="replace",
        replace=lambda _: commit_all_layers,
        fixes=_ON_THE_HOST,
        delete_when=_DELETE_WHEN,
        releases=">=0.19",
    ),
    Override(
        target=f"{_STATE}:_commit_eplb_maps_for_layer",
        signature="(model_state, new_physical_to_logical_map, layer)",
        kind="replace",
        replace=lambda _: _commit_one_of_all_layers,
        fixes=_ON_THE_HOST_FOR_A_LAYER,
        delete_when=_DELETE_WHEN,
        releases=">=0.19,<0.20",
    ),
    Override(
        target=f"{_STATE}:_commit_eplb_maps_for_layer",
        signature="(model_state, new_physical_to_logical_map, layer)",
        kind="replace",
        replace=lambda _: commit_one_layer,
        fixes=_ON_THE_HOST_FOR_A_LAYER,
        delete_when=_DELETE_WHEN,
        releases=">=0.20",
    ),
    Override(
        target=f"{_STATE}:EplbState.update_mapping",
        signature="(self, model_config, expanded_physical_to_logical)",
        kind="replace",
        replace=lambda _: _update_mapping,
        fixes=_UNCHECKED,
        delete_when=_DELETE_WHEN,
        releases=">=0.29",
    ),
)
