# SPDX-License-Identifier: Apache-2.0
"""Pipeline stages: each balances the experts of its own layers, and needs not have any.

A stage sees its own layers only. So every stage that has experts says so in the store of its
pipeline, and only one that has none waits, for what the others say.
"""

import functools
import logging
from collections.abc import Callable
from itertools import count
from typing import Any

import torch.distributed as dist
from vllm.distributed.parallel_state import get_pp_group

from vllm_eplb_plugin.engine.bulletin import hear, part, say
from vllm_eplb_plugin.engine.refusals import ModelWithoutEplbError
from vllm_eplb_plugin.engine.rendezvous import RanksMissingError

logger = logging.getLogger("vllm.eplb_plugin")

_profiles = count()
"""Of this process, so far: as many on every stage."""
_EXPERTS, _BARRIERS = "experts of a stage", "barriers of a profile run"
_LIMIT_SECONDS = 600.0
"""The engine waits for all stages anyway, and they load at different speeds."""


def count_layers_of_this_stage(model: Any) -> None:
    """Correct what several models (DeepSeek-V2 and V3, GLM-4 MoE, AFMoE, openPangu) say.

    Their ``num_moe_layers`` is the whole model's, and a bare assertion of vLLM's transfer ends a
    stage that has fewer.

    Args:
        model: A vLLM ``MixtureOfExperts``.
    """
    layers = len(list(model.moe_layers))
    if model.num_moe_layers != layers:
        model.num_moe_layers = layers


def say_that_stage_has_experts() -> None:
    """Let stages without experts go on; nobody is waited for."""
    stages = get_pp_group()
    if stages.world_size > 1:
        say(stages, _EXPERTS, True)


@functools.cache
def refuse_model_without_experts(model: str = "the model") -> None:
    """On a stage that has none, wait until another one has said that it has some.

    Before the first request; asked again, it answers at once.

    Args:
        model: What to call it.

    Raises:
        ModelWithoutEplbError: No stage has any. Every stage raises it.
    """
    stages = get_pp_group()
    if stages.world_size == 1:
        raise ModelWithoutEplbError(model)
    say(stages, _EXPERTS, False)
    said = hear(stages, _EXPERTS, _LIMIT_SECONDS, enough=any)
    if len(said) == stages.world_size and not any(said):
        part(stages, _EXPERTS)
        raise ModelWithoutEplbError(model)
    if not any(said):
        logger.warning(
            "Pipeline stage %d has no MoE layer, and within %g s not every other stage has said "
            "whether it has any. Serving goes on; if none has, EPLB is without effect.",
            stages.rank_in_group,
            _LIMIT_SECONDS,
        )


def profile_with_other_stages(state: Any, profile: Callable[[], Any]) -> Any:
    """Profile a rearrangement, and pass as many barriers as the stage that passes most.

    vLLM's profile run passes one over all ranks of all stages for every tensor of a layer, on a
    stage that has experts, and for its drafter's again (``rearrange_expert_weights_inplace``): with
    a stage that has none, or one that has a drafter, some would wait for the others for ever.

    Args:
        state: An `EplbState`.
        profile: Does it as vLLM does.

    Raises:
        RanksMissingError: A stage does not profile.
    """
    stages = get_pp_group()
    if stages.world_size == 1:
        return profile()
    mine = sum(map(_barriers, state.model_states.values()))
    subject = f"{_BARRIERS} {next(_profiles)}"
    say(stages, subject, mine)
    answer = profile()
    said = hear(stages, subject, _LIMIT_SECONDS, enough=lambda _: False)
    if len(said) < stages.world_size:
        raise RanksMissingError(
            f"of {stages.world_size} pipeline stages, {len(said)} profiled a rearrangement within "
            f"{_LIMIT_SECONDS:g} s: the logs of the others say why they did not"
        )
    for _ in range(max(said) - mine):
        dist.barrier()
    return answer


def _barriers(model_state: Any) -> int:
    communicator = getattr(model_state, "communicator", None)  # none before 0.20
    if communicator is not None and not communicator.needs_profile_buffer_reservation:
        return 0
    return len(model_state.model.expert_weights[0])
