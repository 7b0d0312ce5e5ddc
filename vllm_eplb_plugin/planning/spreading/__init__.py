# SPDX-License-Identifier: Apache-2.0
"""Bring the experts of a layer to a second rank each, compiled.

Loads are integers, 2**40 for the mean load of a rank: sums are exact in any order, so that every
rank and every processor decides alike, and the same again on what it has decided.
"""
