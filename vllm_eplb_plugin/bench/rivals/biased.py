# SPDX-License-Identifier: Apache-2.0
"""Biased replication (ROCm's ATOM): the hottest experts on every rank, all others at home."""

import numpy as np

from vllm_eplb_plugin.planning.problem import Floats, Integers, Problem


def biased(problem: Problem) -> Integers:
    """Plan ``[layers, slots]``.

    Raises:
        ValueError: Ranks are not the homes of as many experts each, or have more slots than there
            are experts besides.
    """
    ranks, experts = problem.num_ranks, problem.num_experts
    if experts % ranks or problem.num_slots // ranks - experts // ranks > experts:
        raise ValueError(f"biased replication cannot place {experts} experts on {ranks} ranks")
    rows = [
        _layer(load, old.reshape(ranks, -1), experts // ranks)
        for load, old in zip(problem.load, problem.old, strict=True)
    ]
    return np.stack(rows)


def _layer(load: Floats, old: Integers, homes: int) -> Integers:
    """Homes are the first slots of each rank: once chosen they stay."""
    home = old[:, :homes]
    if len(np.unique(home)) < home.size:
        home = np.arange(home.size, dtype=np.int64).reshape(home.shape)
    hottest = np.argsort(-load, kind="stable")
    rows = []
    for mine, before in zip(home, old[:, homes:], strict=True):
        here = np.isin(hottest, mine)
        wanted = np.concatenate([hottest[~here], hottest[here]])[: len(before)]
        rows.append(np.concatenate([mine, _in_place(wanted, before)]))
    placement: Integers = np.concatenate(rows)
    return placement


def _in_place(wanted: Integers, before: Integers) -> Integers:
    """Leave what stays where it was."""
    stays = np.zeros(len(before), np.bool_)
    stays[np.unique(before, return_index=True)[1]] = True
    stays &= np.isin(before, wanted)
    placed: Integers = before.copy()
    placed[~stays] = wanted[~np.isin(wanted, before)]
    return placed
