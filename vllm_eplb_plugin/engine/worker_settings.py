# SPDX-License-Identifier: Apache-2.0
"""Where a worker's process learns its settings, whatever it makes later, and hears commands.

Bound when vLLM's module is imported, also without EPLB: nothing else is imported here.
"""

import functools
import os
from collections.abc import Callable
from typing import Any

from vllm_eplb_plugin import ENVIRONMENT_VARIABLE
from vllm_eplb_plugin.overrides.override import Override


def _override_init(original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def __init__(self: Any, vllm_config: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        if vllm_config.parallel_config.enable_eplb:
            from vllm_eplb_plugin.settings import adopt_settings

            settings = adopt_settings(vllm_config.additional_config)
            if settings.enabled and settings.control:
                from vllm_eplb_plugin.observe.commands import note

                # What vLLM's `collective_rpc` calls by that name (`front_end.control_routes`).
                self.eplb_command = note
        if _names_exact_combine(vllm_config.additional_config):
            from vllm_eplb_plugin.engine.exact_combine import add_exactly_if_asked

            add_exactly_if_asked(vllm_config)
        original(self, vllm_config, *args, **kwargs)

    return __init__


def _names_exact_combine(additional_config: object) -> bool:
    """Without EPLB, whoever does not name this setting is served as if there were no plugin."""
    told = os.environ.get(ENVIRONMENT_VARIABLE, "") + str(additional_config)
    return "exact_combine" in told


OVERRIDES = (
    Override(
        target="vllm.v1.worker.worker_base:WorkerBase.__init__",
        signature="(self, vllm_config, local_rank, rank, distributed_init_method, "
        "is_driver_worker=False)",
        kind="hook",
        replace=_override_init,
        fixes="Elastic EP's new rank makes its `EplbState` where no configuration is at hand: it "
        "would get the default settings, without a word.",
        delete_when="vLLM hands --additional-config to its plugins.",
    ),
)
