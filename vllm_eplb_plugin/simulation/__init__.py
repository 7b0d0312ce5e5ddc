# SPDX-License-Identifier: Apache-2.0
"""Recordings played through pipelines: what EPLB would have done, and what to set."""
