# SPDX-License-Identifier: Apache-2.0
"""Errors that more than one override raises, and settings that do not go together."""

from vllm_eplb_plugin.settings import Settings


def refuse_with_elastic_ep(settings: Settings) -> None:
    """Refuse settings that do not go with ranks that come and go.

    Raises:
        ValueError: It names the setting, and why.
    """
    planning = settings.planning
    if settings.check_weights:
        raise ValueError(
            "check_weights compares with weights gathered at load, which elastic EP's new "
            "ranks do not take part in: turn off check_weights or elastic EP"
        )
    if planning is not None and (planning.trigger or planning.smoothing):
        raise ValueError(
            "planning.trigger and planning.smoothing need loads of steps that elastic EP's new "
            "ranks have not made: leave them out, or elastic EP"
        )
    if settings.control:
        raise ValueError(
            "control lets all ranks do the same in the same step, and elastic EP's new ranks count "
            "other steps: turn off control or elastic EP"
        )
    if settings.recording is not None:
        raise ValueError(
            "a recording is of one number of ranks, which elastic EP changes: leave out recording "
            "or elastic EP"
        )
    if planning is not None and planning.initial is not None:
        raise ValueError(
            "planning.initial places experts when all ranks have loaded them, and elastic EP's new "
            "ranks get theirs later: leave it out, or elastic EP"
        )


def refuse_with_stages(settings: Settings) -> None:
    """Refuse settings that do not go with several pipeline stages.

    Raises:
        ValueError: It names the setting, and why.
    """
    if settings.planning is not None and settings.planning.initial is not None:
        raise ValueError(
            "planning.initial is of all MoE layers of a model, and each pipeline stage has some of "
            "them: leave it out, or serve with one stage"
        )


class ModelWithoutEplbError(RuntimeError):
    """EPLB was asked for, but no expert of this model would ever move."""

    def __init__(self, model: str) -> None:
        super().__init__(
            f"--enable-eplb is set, but {model} does not implement vLLM's MixtureOfExperts: no "
            "expert would ever move. Serve it without --enable-eplb."
        )
