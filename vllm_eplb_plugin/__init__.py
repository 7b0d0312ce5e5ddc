# SPDX-License-Identifier: Apache-2.0
"""Single-map Expert Parallelism Load Balancer for vLLM."""

__version__ = "0.2.0"


ENVIRONMENT_VARIABLE = "EPLB_PLUGIN"
"""Where settings are read from that --additional-config does not give."""


def register() -> None:
    """Entry point of the group ``vllm.general_plugins``; vLLM calls it once in every process.

    Raises:
        SettingsError: The environment variable ``EPLB_PLUGIN`` is wrong.
    """
    from vllm_eplb_plugin.activation import activate

    activate()
