# SPDX-License-Identifier: Apache-2.0
"""Greedy decoding by transformers, which servers have to equal."""
