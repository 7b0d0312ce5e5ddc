# SPDX-License-Identifier: Apache-2.0
"""What the plugin makes of a model's MoE layers when vLLM hands the model its maps."""

from collections.abc import Callable, MutableSequence
from typing import Any

import torch

from vllm_eplb_plugin.engine.agreement import agree
from vllm_eplb_plugin.engine.elastic import joins_running_ranks
from vllm_eplb_plugin.engine.layer_kinds import describe_layers, find_misfit
from vllm_eplb_plugin.engine.replicas import weights_are_dummies
from vllm_eplb_plugin.transfer.layer_weights import LayerWeights, receive_apart

LOADING_SECONDS = 1800.0
"""How long ranks wait for one that still loads its weights, as gloo's collectives do."""


class LayersError(RuntimeError):
    """vLLM cannot move the experts of this model."""

    def __init__(self, misfit: str) -> None:
        super().__init__(f"EPLB cannot move the experts of this model: {misfit}")


class StateSetter:
    """Stands for a model's ``set_eplb_state`` from `EplbState.add_model` on.

    vLLM calls it when a model is added, and elastic EP each time that it scales, after it has
    emptied ``model.expert_weights``.

    l2p gets as many columns as a logical expert can ever have replicas: vLLM's 1024 take 122 MB for
    DeepSeek-V3. When the model is added, nothing has captured an address yet; later calls hand over
    what is narrow already. The experts' weights become views of their bytes.
    """

    def __init__(self, model: Any, width: int | None, once: Callable[[], None]) -> None:
        """Stand in for the model's method.

        Args:
            model: A vLLM `MixtureOfExperts`.
            width: Columns of l2p; None leaves it as it is.
            once: Called at the end of the first call.
        """
        self.logical_to_physical_map: torch.Tensor | None = None
        """What the layers read."""
        self._model, self._width, self._original = model, width, model.set_eplb_state
        self._once: Callable[[], None] | None = once
        model.set_eplb_state = self

    def __call__(
        self,
        expert_load_view: torch.Tensor,
        logical_to_physical_map: torch.Tensor,
        logical_replica_count: torch.Tensor,
    ) -> None:
        """Do what the model does, and take in what it has filled."""
        narrow = logical_to_physical_map[..., : self._width].contiguous()
        self.logical_to_physical_map = narrow
        self._original(expert_load_view, narrow, logical_replica_count)
        view_as_bytes(self._model)
        if self._once is not None:
            once, self._once = self._once, None
            once()
        if self._model.expert_weights:
            receive_apart(self._model.expert_weights)


def view_as_bytes(model: Any) -> None:
    """Replace the tensors of ``model.expert_weights`` by views of their bytes."""
    layers = [LayerWeights(layer) for layer in model.expert_weights]
    if isinstance(model.expert_weights, MutableSequence):
        # In place: a multi-modal model and its language model share the list.
        model.expert_weights[:] = layers
    else:
        model.expert_weights = layers


def check_layers(state: Any, model: Any, coordinator: Any, limit_seconds: float) -> None:
    """Refuse a model whose experts vLLM cannot move, on every rank and before any collective.

    Args:
        state: An `EplbState`.
        model: A `MixtureOfExperts` that has just filled its ``expert_weights``.
        coordinator: vLLM's group of EP ranks; all of them come.
        limit_seconds: How long to wait for ranks that may still load weights.

    Raises:
        RanksDisagreeError: Layers are not alike on all ranks.
        RanksMissingError: A rank did not come.
        LayersError: They cannot be moved.
    """
    # What elastic EP adds comes alone, with what the ranks that serve were checked with.
    if joins_running_ranks():
        return
    layers = [layer.kinds for layer in model.expert_weights]
    facts = {
        "number of MoE layers": model.num_moe_layers,
        "dummy weights": weights_are_dummies(),
        **describe_layers(layers),
    }
    agree(coordinator, "The MoE layers", facts, limit_seconds, "Load the same on all ranks")
    slots = model.num_physical_experts // coordinator.world_size
    communicator = getattr(state.parallel_config.eplb_config, "communicator", None)
    misfit = find_misfit(layers, model.num_moe_layers, slots, communicator)
    if misfit is not None:
        raise LayersError(misfit)
