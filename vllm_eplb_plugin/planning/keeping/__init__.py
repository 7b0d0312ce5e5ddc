# SPDX-License-Identifier: Apache-2.0
"""Bring a layer that was planned from scratch near the placement in force, compiled.

Shares of load are integers, 2**40 for the mean load of a rank: sums are exact in any order, so that
every rank and every processor decides alike, and the same again on what it has decided.
"""
