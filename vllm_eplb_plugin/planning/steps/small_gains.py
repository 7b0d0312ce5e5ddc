# SPDX-License-Identifier: Apache-2.0
"""Layers that would gain too little stay as they are."""

import numpy as np

from vllm_eplb_plugin.planning.costs import balancedness_of_layers
from vllm_eplb_plugin.planning.problem import Integers, Problem


def drop_small_gains(problem: Problem, placement: Integers) -> Integers:
    """Leave alone each layer whose balancedness would grow by less than ``limits.min_gain``."""
    before = balancedness_of_layers(problem, problem.old)
    gain = balancedness_of_layers(problem, placement) - before
    kept: Integers = np.where((gain < problem.limits.min_gain)[:, None], problem.old, placement)
    return kept
