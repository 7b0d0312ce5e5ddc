# SPDX-License-Identifier: Apache-2.0
"""EPLB broken or slowed on purpose."""
