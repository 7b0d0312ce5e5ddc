# SPDX-License-Identifier: Apache-2.0
"""Planning problems of all kinds, and what every placement has to hold."""

import numpy as np
import torch
from hypothesis import strategies as st

from vllm_eplb_plugin.placement.maps import validate_placement
from vllm_eplb_plugin.planning.costs import costs_of
from vllm_eplb_plugin.planning.problem import Integers, Limits, Problem


@st.composite
def problems(
    draw: st.DrawFn, limits: Limits | None = None, groups: bool = False, scattered: bool = False
) -> Problem:
    """Problems of all sizes, from placements that are balanced, random or vLLM's first one; those
    with ``groups`` are whole on nodes unless they are ``scattered``."""
    nodes = draw(st.integers(1, 3)) if not groups else draw(st.integers(2, 3))
    ranks = nodes * draw(st.integers(1, 4))
    size = draw(st.integers(1, 6))
    slots = ranks * size
    num_groups = 1
    if groups:
        num_groups = nodes * draw(st.integers(1, 2))
        most = slots // nodes // (num_groups // nodes)
        experts = num_groups * draw(st.integers(1, max(1, most)))
        if experts > slots:
            experts = num_groups
        if experts > slots:
            num_groups = experts = nodes
    else:
        experts = draw(st.integers(1, slots))
    seed = draw(st.integers(0, 2**32 - 1))
    random = np.random.default_rng(seed)
    layers = draw(st.integers(1, 3))
    sigma = draw(st.sampled_from([0.0, 0.6, 2.0, 8.0]))
    load = np.round(np.exp(sigma * random.normal(size=(layers, experts))) * 100)
    if draw(st.booleans()):
        load[random.random(load.shape) < 0.3] = 0.0
    old = np.empty((layers, slots), np.int64)
    scattered = draw(st.booleans())
    for row in old:
        if groups and not scattered:
            fill_by_groups(row, experts, num_groups, nodes, random)
        else:
            row[:experts] = np.arange(experts)
            row[experts:] = random.integers(0, experts, slots - experts)
            random.shuffle(row)
    cost = draw(st.sampled_from([1.0, 4.0]))
    return Problem(
        load,
        old,
        ranks,
        nodes,
        num_groups,
        expert_bytes=random.integers(1, 4, layers),
        limits=limits or Limits(other_node_cost=cost),
    )


def fill_by_groups(
    row: Integers, experts: int, groups: int, nodes: int, random: np.random.Generator
) -> None:
    size, each, slots = experts // groups, groups // nodes, len(row) // nodes
    order = random.permutation(groups)
    for node in range(nodes):
        mine = np.concatenate(
            [np.arange(group * size, (group + 1) * size) for group in order[node * each :][:each]]
        )
        extra = random.choice(mine, slots - len(mine))
        row[node * slots : (node + 1) * slots] = random.permutation(np.concatenate([mine, extra]))


def require_valid(problem: Problem, placement: Integers) -> None:
    shape = (problem.num_layers, problem.num_slots)
    validate_placement(torch.from_numpy(placement), shape, problem.num_experts)


def require_within_limits(problem: Problem, placement: Integers) -> None:
    received = costs_of(problem, placement).bytes_received(problem.bytes_of)
    limits = problem.limits
    for limit, found in (
        (limits.max_bytes, received.sum()),
        (limits.max_bytes_per_rank, received.sum(axis=0).max()),
        (limits.max_layers, (placement != problem.old).any(axis=1).sum()),
    ):
        assert limit is None or found <= limit


@st.composite
def limited(draw: st.DrawFn) -> Problem:
    budget = st.none() | st.integers(0, 12)
    limits = Limits(draw(budget), draw(budget), draw(st.none() | st.integers(0, 3)))
    return draw(problems(limits) | problems(limits, groups=True))
