# SPDX-License-Identifier: Apache-2.0
"""``python -m vllm_eplb_plugin.cli``."""

from vllm_eplb_plugin.cli.main import main

main()
