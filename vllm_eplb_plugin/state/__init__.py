# SPDX-License-Identifier: Apache-2.0
"""Overrides of vLLM's EPLB state manager."""
