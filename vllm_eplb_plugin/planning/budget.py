# SPDX-License-Identifier: Apache-2.0
"""As many moves as the limits allow, the best ones of all layers first."""

import numpy as np

from vllm_eplb_plugin.placement.compiling import compiled
from vllm_eplb_plugin.planning.problem import Floats, Integers, Limits

_NO_LIMIT = np.iinfo(np.int64).max


def moves_within(
    limits: Limits,
    old: Integers,
    moves: Integers,
    worths: Floats,
    made: Integers,
    ranks: int,
    expert_bytes: Integers,
) -> Integers:
    """Make moves again, as `planning.refining.refine` tells them, until no other is affordable.

    A row stops at its first move that a limit forbids: later ones stand on it.

    Args:
        limits: What may be moved.
        old: ``[rows, slots]``: where to start.
        moves: ``[rows, most, 4]``.
        worths: ``[rows, most]``.
        made: ``[rows]``.
        ranks: Ranks of a row; the rows of a layer have one after another's.
        expert_bytes: ``[layers]``; the rows of a layer follow one another.

    Returns:
        ``[rows, slots]``.
    """
    placement: Integers = old.copy()
    rows_of_layer = len(old) // len(expert_bytes)
    received = np.zeros(ranks * rows_of_layer, np.int64)
    most = [limits.max_bytes, limits.max_bytes_per_rank, limits.max_layers]
    known = np.array([_NO_LIMIT if limit is None else limit for limit in most])
    _make(old, placement, moves, worths, made, ranks, expert_bytes, received, known)
    return placement


@compiled(
    "i8(i8[:,::1], i8[:,::1], i8, i8, i8, i8)",
    nogil=True,
)
def _received(old, placement, row, slot, gets, size):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Experts that a rank receives more if a slot gets another one: -1, 0 or 1."""
    first, loses = slot // size * size, placement[row, slot]
    has, had, keeps, knew = False, False, False, False
    for other in range(first, first + size):
        has |= placement[row, other] == gets
        had |= old[row, other] == gets
        keeps |= other != slot and placement[row, other] == loses
        knew |= old[row, other] == loses
    return int(not has and not had) - int(not keeps and not knew)


@compiled(
    "void(i8[:,::1], i8[:,::1], i8[:,:,::1], f8[:,::1], i8[::1], i8, i8[::1], i8[::1], i8[::1])",
    nogil=True,
)
def _make(old, placement, moves, worths, made, ranks, expert_bytes, received, limits):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    rows, slots = placement.shape
    layers = expert_bytes.shape[0]
    rows_of_layer, size = rows // layers, slots // ranks
    following = np.zeros(rows, np.int64)
    changed = np.zeros(layers, np.bool_)
    while True:
        row, best = -1, 0.0
        for candidate in range(rows):
            index = following[candidate]
            if index < made[candidate] and worths[candidate, index] > best:
                row, best = candidate, worths[candidate, index]
        if row < 0:
            return
        layer, before = row // rows_of_layer, row % rows_of_layer * ranks
        slot, expert, other, other_expert = moves[row, following[row]]
        # One after the other, so that the second sees what the first has done.
        touched = np.zeros(received.shape[0], np.int64)
        left, other_left = placement[row, slot], -1
        touched[before + slot // size] += _received(old, placement, row, slot, expert, size)
        placement[row, slot] = expert
        if other >= 0:
            other_left = placement[row, other]
            touched[before + other // size] += _received(
                old, placement, row, other, other_expert, size
            )
            placement[row, other] = other_expert
        touched *= expert_bytes[layer]
        dear = np.sum(received) + np.sum(touched) > limits[0]
        dear |= not changed[layer] and np.sum(changed) >= limits[2]
        for rank in range(received.shape[0]):
            dear |= touched[rank] > 0 and received[rank] + touched[rank] > limits[1]
        if dear:
            placement[row, slot] = left
            if other >= 0:
                placement[row, other] = other_left
            following[row] = made[row]
        else:
            received += touched
            changed[layer] = True
            following[row] += 1
