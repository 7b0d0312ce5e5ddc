# SPDX-License-Identifier: Apache-2.0
"""Serve a model with and without EPLB, ask both the same questions, judge the answers."""
