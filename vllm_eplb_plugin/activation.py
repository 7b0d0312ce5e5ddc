# SPDX-License-Identifier: Apache-2.0
"""What happens when vLLM loads the plugin."""

from vllm_eplb_plugin.overrides.binding import OverrideError, bind, find_mismatches
from vllm_eplb_plugin.overrides.catalogue import overrides_for
from vllm_eplb_plugin.releases import installed_support, supported_releases
from vllm_eplb_plugin.settings import ENVIRONMENT_VARIABLE, load_settings


def activate() -> None:
    """Check every target, bind the entry overrides; the others follow when they are needed."""
    from vllm.logger import init_logger

    logger = init_logger("vllm.eplb_plugin")
    # --additional-config is not known yet in this process: only the variable can say no here.
    if not load_settings().enabled:
        logger.warning(
            "vllm-eplb-plugin is turned off by %s: EPLB is vLLM's own.", ENVIRONMENT_VARIABLE
        )
        return
    support = installed_support()
    overrides = overrides_for(support.release)
    if problems := find_mismatches(overrides.state):
        raise OverrideError(problems)
    bind(overrides.entry)
    if not support.tested:
        logger.warning_once(
            "vLLM %s is newer than every release that vllm-eplb-plugin was tested with (up to "
            "%s). All that it overrides looks as expected, so it is used.",
            support.release,
            supported_releases()[-1],
        )
