# SPDX-License-Identifier: Apache-2.0
"""What the plugin saves, measured against the installed vLLM: `vllm-eplb bench`."""
