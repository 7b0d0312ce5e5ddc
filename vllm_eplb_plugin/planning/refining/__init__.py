# SPDX-License-Identifier: Apache-2.0
"""Improve a layer's placement move by move: the heart of the incremental policy, compiled.

A move takes load off the fullest rank: it swaps two experts, or gives a slot that holds a replica
to another expert. Each step makes the move that takes the most load above the target away for each
expert that a rank has to receive. All arithmetic is in one order and in double precision, so that
every rank and every processor plans alike.
"""
