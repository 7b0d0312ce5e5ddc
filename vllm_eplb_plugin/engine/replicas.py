# SPDX-License-Identifier: Apache-2.0
"""Whether the model's loader has filled redundant slots, before anybody is answered from them."""

import logging
from typing import Any

from vllm.config.vllm import get_current_vllm_config_or_none

from vllm_eplb_plugin.engine.commit_checks import digest_local, gather_slots, warn_of_small
from vllm_eplb_plugin.engine.elastic import joins_running_ranks
from vllm_eplb_plugin.engine.rendezvous import meet
from vllm_eplb_plugin.observe.checks.weights import (
    check_replicas,
    replicated_slots,
    unlike_replicas,
)

logger = logging.getLogger("vllm.eplb_plugin")


def weights_are_dummies() -> bool:
    """Say whether the weights of the model that is being loaded are made up."""
    config = get_current_vllm_config_or_none()
    load_format = None if config is None else config.load_config.load_format
    return getattr(load_format, "value", load_format) == "dummy"


def compare_replicas(model_state: Any, coordinator: Any, limit_seconds: float) -> None:
    """Refuse a model of which a logical expert's slots were loaded with different weights.

    All ranks of the group call, and all do the same, by what `check_layers` made sure of. Nothing
    is computed where no expert is redundant.

    Args:
        model_state: A vLLM ``EplbModelState``, just added.
        coordinator: vLLM's group of EP ranks.
        limit_seconds: How long to wait for a rank that has not computed its digests.

    Raises:
        WeightsError: On every rank.
        RanksMissingError: A rank did not come.
    """
    placement = model_state.physical_to_logical_map.cpu().long()
    replicated = replicated_slots(placement)
    if not replicated.any() or joins_running_ranks():
        return
    tells = coordinator.rank_in_group == 0
    if weights_are_dummies():
        if tells:
            logger.warning(
                "EPLB does not compare redundant slots of %s: its weights are dummies, different "
                "in every slot, so answers change when experts move.",
                model_state.model_name,
            )
        return
    rank, size = coordinator.rank_in_group, coordinator.world_size
    local = digest_local(model_state, replicated.chunk(size, dim=1)[rank])
    meet(coordinator, "redundant slots", None, limit_seconds)
    parts = gather_slots(local, coordinator.cpu_group)
    check_replicas(parts[..., 0], placement, model_state.model_name)
    if tells:
        warn_of_small(model_state, set(unlike_replicas(parts[..., 1], placement)[:, 0].tolist()))
