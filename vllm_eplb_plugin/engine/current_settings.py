# SPDX-License-Identifier: Apache-2.0
"""Settings in a process that serves."""

from vllm.config.vllm import get_current_vllm_config_or_none

from vllm_eplb_plugin.settings import Settings, adopt_settings, process_settings


def current_settings() -> Settings:
    """Find the settings of the vLLM configuration that is being set up, else of this process.

    vLLM makes an `EplbState` outside of its configuration, too: on elastic EP's new rank, and in
    model runner V2's ``setup_from_mapping``.
    """
    config = get_current_vllm_config_or_none()
    return process_settings() if config is None else adopt_settings(config.additional_config)
