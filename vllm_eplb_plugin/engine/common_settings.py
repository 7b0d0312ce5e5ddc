# SPDX-License-Identifier: Apache-2.0
"""Ranks compare versions and settings before any of them enters what another would not.

vLLM compares its own options over ranks, where it does, only when models are loaded, and knows
none of the plugin's.
"""

import functools
import logging
import weakref
from dataclasses import asdict
from typing import Any

from vllm.distributed import parallel_state

from vllm_eplb_plugin import __version__
from vllm_eplb_plugin.compatibility import installed_support
from vllm_eplb_plugin.engine.agreement import agree
from vllm_eplb_plugin.engine.rendezvous import RanksMissingError
from vllm_eplb_plugin.settings import Settings, common_settings

logger = logging.getLogger("vllm.eplb_plugin")

_NEXT_STEP = (
    "Start every node with the same --additional-config, EPLB_PLUGIN and --eplb-config, and with "
    "the same releases of vLLM and vllm-eplb-plugin"
)

_agreed: "weakref.WeakSet[Any]" = weakref.WeakSet()
"""Elastic EP's groups in which all ranks agree."""


def agree_when_all_come(state: Any, settings: Settings) -> None:
    """Let all EP ranks compare settings: at once, or with elastic EP when all surely come.

    There, ranks that are added make an `EplbState` while the others keep theirs. So whenever the
    EP group is another one, it is done in the first ``rearrange``, which all of them enter: at the
    start the one that vLLM profiles, later the one that gives experts to ranks that were added.

    Args:
        state: An `EplbState`, vLLM's own or overridden.
        settings: Of this rank.

    Raises:
        RanksDisagreeError: A version or setting that has to be alike is not.
        RanksMissingError: A rank did not come.
    """
    parallel_config = state.parallel_config
    if not parallel_config.enable_elastic_ep:
        # vLLM makes no EP group for a model without experts.
        if parallel_state._EP is not None:
            _agree(settings, parallel_config)
        return
    original = state.rearrange

    @functools.wraps(original)
    def rearrange(*args: Any, **kwargs: Any) -> Any:
        if (group := parallel_state.get_ep_group()) not in _agreed:
            _agree(settings, parallel_config)
            _agreed.add(group)
        return original(*args, **kwargs)

    # On the instance: outside of whatever is bound to the class, and where nothing is bound.
    state.rearrange = rearrange


def _agree(settings: Settings, parallel_config: Any) -> None:
    group, limit = parallel_state.get_ep_group(), settings.rank_timeout_s
    try:
        agree(group, "EPLB on or off", {"enabled": settings.enabled}, limit, _NEXT_STEP)
    except RanksMissingError as error:
        if settings.enabled or any(came.message["enabled"] for came in error.came):
            raise
        # Without the plugin EPLB is vLLM's own, as it is here.
        logger.warning("EPLB is vLLM's own on every rank that has told. %s", error)
        return
    if settings.enabled:
        agree(group, "EPLB's start", _facts(settings, parallel_config), limit, _NEXT_STEP)


def _facts(settings: Settings, parallel_config: Any) -> dict[str, Any]:
    """What has to be alike where EPLB is the plugin's."""
    support = installed_support()
    eplb_config = asdict(parallel_config.eplb_config)
    if parallel_config.enable_elastic_ep:
        # Follows from the number of ranks, and is set at different moments.
        eplb_config.pop("num_redundant_experts")
    return {
        "vllm-eplb-plugin": __version__,
        # Builds for other devices differ after the plus sign.
        "vLLM": support.installed.partition("+")[0],
        "overridden as vLLM": support.release,
        **common_settings(settings),
        **{f"--eplb-config {name}": value for name, value in eplb_config.items()},
    }
