# SPDX-License-Identifier: Apache-2.0
"""Override of where a model is added to an `EplbState`: what is looked at before it serves."""

import functools
import sys
from collections.abc import Callable
from typing import Any

from vllm.distributed.parallel_state import get_ep_group, get_eplb_group

from vllm_eplb_plugin.engine.announcement import announce
from vllm_eplb_plugin.engine.first_placement import update_recording
from vllm_eplb_plugin.engine.model_layers import LOADING_SECONDS, StateSetter, check_layers
from vllm_eplb_plugin.engine.rendezvous import meet
from vllm_eplb_plugin.engine.replicas import compare_replicas
from vllm_eplb_plugin.engine.self_test import run_self_test
from vllm_eplb_plugin.engine.session import session_of
from vllm_eplb_plugin.engine.stages import count_layers_of_this_stage, say_that_stage_has_experts
from vllm_eplb_plugin.engine.transfer_choice import choose_transfer
from vllm_eplb_plugin.engine.weight_updates import follow_load_weights
from vllm_eplb_plugin.overrides.override import Override

_Method = Callable[..., Any]


def _override_add_model(original: _Method) -> _Method:
    @functools.wraps(original)
    def add_model(self: Any, model: Any, model_config: Any, *args: Any, **kwargs: Any) -> None:
        session, ranks = session_of(self), get_ep_group()
        limit = max(session.settings.rank_timeout_s, LOADING_SECONDS)

        def check() -> None:
            check_layers(self, model, ranks, limit)

        count_layers_of_this_stage(model)
        setter = StateSetter(model, _width(self, model), check)
        original(self, model, model_config, *args, **kwargs)
        model_state = self.model_states[model_config.compute_hash()]
        model_state.logical_to_physical_map = setter.logical_to_physical_map
        say_that_stage_has_experts()
        group = get_eplb_group().cpu_group
        if not session.settings.check_weights:
            compare_replicas(model_state, ranks, limit)
        is_drafter = getattr(model_config, "runner_type", None) == "draft"
        meet_all = functools.partial(meet, ranks, "digests of all slots", None, limit)
        added = session.add(model_state, group, is_drafter, meet_all)
        added.committer.commit_again()
        follow_load_weights(self, model)
        added.peers, way = choose_transfer(self, model_state, ranks, session.settings, limit)
        session.transfer = way
        tried = run_self_test(self, model_state, group)
        if not self.parallel_config.enable_elastic_ep:
            added.carrier.answer_for(model_state.model.expert_weights)
        began = None
        if session.warm_start is not None:
            began = session.warm_start.begin(self, model_state, added.moved.id)
        never = session.warm_start is not None and session.warm_start.stays
        if never:
            self.expert_rearrangement_step_interval = sys.maxsize
            update_recording(self)
        counts = not self.parallel_config.enable_elastic_ep
        if session.planner is not None and counts and (session.commands or not never):
            window = self.parallel_config.eplb_config.window_size
            index = added.moved.id.model_index
            session.planner.count(index, model_state, window, began)
        if session.source.speaks_for_all:
            announce(session, added, self.is_async, way, tried)

    return add_model


def _width(state: Any, model: Any) -> int | None:
    """Columns of l2p: the most replicas that one logical expert can ever have."""
    config = state.parallel_config
    if not config.enable_elastic_ep:
        redundant: int = model.num_redundant_experts
        return redundant + 1
    # Before 0.30 nobody knows how many ranks there will be: as wide as vLLM makes it.
    if not hasattr(config, "elastic_ep_max_dp_size"):
        return None
    ranks: int = config.elastic_ep_max_dp_size * get_ep_group().world_size
    slots: int = model.num_local_physical_experts * ranks // config.data_parallel_size
    return slots


OVERRIDES = tuple(
    Override(
        target="vllm.distributed.eplb.eplb_state:EplbState.add_model",
        signature=signature,
        kind="replace",
        replace=_override_add_model,
        fixes="l2p has 1024 columns whatever the number of redundant experts, and a pipeline stage "
        "of several models one map for each layer of all stages. Weights of a dtype that the "
        "communicator cannot carry (E8M0, FP4, FP8 over gloo) end the server; layers that differ "
        "get wrong weights or end in a hang.",
        delete_when="vLLM allocates l2p by num_redundant_experts and maps by stage, sends bytes "
        "(0.33 does for dtypes of one byte) and refuses layers that differ.",
        releases=releases,
    )
    for releases, signature in (
        ("<0.32", "(self, model, model_config)"),
        (">=0.32", "(self, model, model_config, model_name=None)"),
    )
)
