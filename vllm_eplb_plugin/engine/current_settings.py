# SPDX-License-Identifier: Apache-2.0
"""Settings in a process that serves."""

from vllm.config.vllm import get_current_vllm_config_or_none

from vllm_eplb_plugin.settings import Settings, load_settings


def current_settings() -> Settings:
    """Settings of the vLLM configuration that is being set up, or of the environment."""
    config = get_current_vllm_config_or_none()
    return load_settings(config.additional_config if config is not None else None)
