# SPDX-License-Identifier: Apache-2.0
"""Where a worker begins to add experts' outputs exactly, if that is asked for (docs/exact.md)."""

from typing import Any

from vllm_eplb_plugin.compatibility import installed_support
from vllm_eplb_plugin.overrides.binding import bind
from vllm_eplb_plugin.overrides.catalogue import overrides_at
from vllm_eplb_plugin.settings import load_settings


def add_exactly_if_asked(vllm_config: Any) -> None:
    """Bind what the setting ``exact_combine`` needs; without it nothing is imported or changed.

    Args:
        vllm_config: vLLM's, of the worker that is made.

    Raises:
        SettingsError: The settings are wrong.
        OverrideError: This vLLM does not look as expected.
    """
    settings = load_settings(vllm_config.additional_config)
    if not (settings.enabled and settings.exact_combine):
        return
    device = "cpu" if vllm_config.device_config.device_type == "cpu" else "gpu"
    bind(overrides_at(installed_support().release, "exact", f"exact_on_{device}"))
