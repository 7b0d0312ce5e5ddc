# SPDX-License-Identifier: Apache-2.0
"""Settings that cannot work with how vLLM is configured are refused before anything is loaded."""

from typing import Any

from vllm_eplb_plugin.settings import Settings


def refuse_unfit(settings: Settings, parallel_config: Any) -> None:
    """Refuse what elastic EP and pipeline stages do not allow; alike on all ranks.

    Raises:
        ValueError: The message names the setting and what to do.
    """
    planning, elastic = settings.planning, parallel_config.enable_elastic_ep
    if settings.check_weights and elastic:
        raise ValueError(
            "check_weights compares with weights gathered at load, which elastic EP's new "
            "ranks do not take part in: turn off check_weights or elastic EP"
        )
    if planning is not None and (planning.trigger or planning.smoothing) and elastic:
        raise ValueError(
            "planning.trigger and planning.smoothing need loads of steps that elastic EP's new "
            "ranks have not made: leave them out, or elastic EP"
        )
    if settings.control and elastic:
        raise ValueError(
            "control lets all ranks do the same in the same step, and elastic EP's new ranks count "
            "other steps: turn off control or elastic EP"
        )
    if settings.recording is not None and elastic:
        raise ValueError(
            "a recording is of one number of ranks, which elastic EP changes: leave out recording "
            "or elastic EP"
        )
    if planning is None or planning.initial is None:
        return
    if elastic:
        raise ValueError(
            "planning.initial places experts when all ranks have loaded them, and elastic EP's new "
            "ranks get theirs later: leave it out, or elastic EP"
        )
    if parallel_config.pipeline_parallel_size > 1:
        raise ValueError(
            "planning.initial is of all MoE layers of a model, and each pipeline stage has some of "
            "them: leave it out, or serve with one stage"
        )
