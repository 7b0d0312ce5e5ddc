# SPDX-License-Identifier: Apache-2.0
"""Windows of load, drawn from how popular experts are."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vllm_eplb_plugin.planning.problem import Floats

TOKENS = 1_000_000
"""Of a layer and window: what its experts take together."""


@dataclass(frozen=True)
class Run:
    """A run is what one history of a server gives policies to do."""

    first: Floats
    """``[layers, logical]``: all policies start from the default one's plan for it."""
    planned: Floats
    """``[plans, layers, logical]``: the windows that are planned from, one after another."""
    served: Floats
    """``[plans, layers, logical]``: those that the plans then serve."""
    changed: Floats
    """``[windows, layers, logical]``: what follows when the domain has changed for good."""


def draw(popularity: Floats, tokens: int, random: np.random.Generator) -> Floats:
    """Draw one window ``[layers, logical]`` of so many tokens a layer.

    Args:
        popularity: ``[layers, logical]``, of any positive sum a layer.
        tokens: Of each layer.
        random: Where it comes from.
    """
    shares = popularity / popularity.sum(axis=1, keepdims=True)
    return random.multinomial(tokens, shares).astype(np.float64)


def draw_all(popularities: Sequence[Floats], tokens: int, random: np.random.Generator) -> Floats:
    """Draw ``[windows, layers, logical]``, one of each."""
    return np.stack([draw(popularity, tokens, random) for popularity in popularities])
