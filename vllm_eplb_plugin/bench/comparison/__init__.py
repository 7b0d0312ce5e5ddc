# SPDX-License-Identifier: Apache-2.0
"""Policies side by side: what their plans are worth on the load that comes, and what they move."""
