# SPDX-License-Identifier: Apache-2.0
"""What EPLB did, from the plugin's events and vLLM's log."""
