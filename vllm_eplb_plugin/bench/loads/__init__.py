# SPDX-License-Identifier: Apache-2.0
"""Loads that policies are compared on: made from a seed, and recorded."""
