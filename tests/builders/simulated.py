# SPDX-License-Identifier: Apache-2.0
"""Recordings of servers that never ran."""

from collections.abc import Sequence

import numpy as np

from vllm_eplb_plugin.planning.problem import Integers
from vllm_eplb_plugin.recording.recording import InForce, Recording, Served, Shape, Window

SHAPE = Shape(layers=2, experts=16, slots=24, ranks=4)
STEPS = 100
"""Between two windows."""


def a_recording(
    loads: Sequence[Integers],
    shape: Shape = SHAPE,
    policy: str = "",
    placements: Sequence[Integers] = (),
    seconds: float = 60.0,
    slices: int = 1,
) -> Recording:
    """A recording of loads ``[layers, logical]``, and of the placements they led to.

    Args:
        loads: Of each window, divided by ``slices``.
        shape: Of the model.
        policy: The setting `planning`.
        placements: The first, and one after each window.
        seconds: Between two windows.
        slices: Of each window.
    """
    windows = [
        Window((number + 1) * STEPS, 1e9 + number * seconds, np.stack([load // slices] * slices))
        for number, load in enumerate(loads)
    ]
    in_force = [
        InForce(number * STEPS, 1e9 + number * seconds, placement)
        for number, placement in enumerate(placements)
    ]
    layers = shape.layers
    served = Served("a-model", 0, shape, (1000,) * layers, "0.32.0", STEPS, STEPS, policy)
    return Recording(served, windows, in_force)


def random_loads(seed: int, windows: int, shape: Shape = SHAPE, domains: int = 1) -> list[Integers]:
    """Loads of uneven experts, which are others in each of the domains that follow each other."""
    random = np.random.default_rng(seed)
    each = -(-windows // domains)
    loads: list[Integers] = []
    for _ in range(domains):
        popularity = np.exp(random.normal(size=(shape.layers, shape.experts)))
        shares = popularity / popularity.sum(axis=1, keepdims=True)
        loads += [random.multinomial(20_000, shares).astype(np.int64) for _ in range(each)]
    return loads[:windows]
