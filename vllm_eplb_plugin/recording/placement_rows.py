# SPDX-License-Identifier: Apache-2.0
"""Checks of placements that were read: all that JSON and YAML can hold, and no expert left out."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vllm_eplb_plugin.recording.recording import RecordingError


def refuse_invalid(
    placement: NDArray[np.int64], experts: int, numbers: Sequence[int] | None = None
) -> None:
    """Refuse a placement of experts that are not there, or one that leaves an expert out.

    Args:
        placement: ``[layers, slots]``.
        experts: Logical experts of a layer.
        numbers: How the layers are called; None: from 0 on.

    Raises:
        RecordingError: It names the layer.
    """
    names = range(len(placement)) if numbers is None else numbers
    for layer, slots in zip(names, placement, strict=True):
        if slots.min() < 0 or slots.max() >= experts:
            wrong = slots[(slots < 0) | (slots >= experts)][0]
            raise RecordingError(
                f"layer {layer} of a placement names expert {wrong}, of {experts} from 0"
            )
        there = np.unique(slots).tolist()
        if len(there) < experts:
            missing = next(at for at, expert in enumerate([*there, -1]) if at != expert)
            raise RecordingError(f"layer {layer} of a placement has no slot for expert {missing}")


def placement_of(rows: Any, numbers: Sequence[int] | None = None) -> NDArray[np.int64]:
    """Check what is to be a placement: each expert up to the highest has a slot in every layer.

    Args:
        rows: For each layer, the logical expert of each slot.
        numbers: How the layers are called; None: from 0 on.

    Raises:
        RecordingError: It names the layer.
    """
    if not isinstance(rows, list) or not rows or not isinstance(rows[0], list) or not rows[0]:
        raise RecordingError("its placement is not a list of each layer's slots")
    names = range(len(rows)) if numbers is None else numbers
    for layer, row in zip(names, rows, strict=True):
        if not isinstance(row, list) or len(row) != len(rows[0]):
            raise RecordingError(f"layer {layer} has not as many slots as layer {names[0]}")
        for slot, expert in enumerate(row):
            if type(expert) is not int or not -(2**31) < expert < 2**31:
                raise RecordingError(f"layer {layer}, slot {slot} has {expert!r}, no expert")
    placement = np.array(rows, np.int64)
    refuse_invalid(placement, int(placement.max()) + 1, names)
    return placement


def placement_by_layer(rows: Any) -> NDArray[np.int64]:
    """Check a placement with layers by their numbers among all layers of a model, in any order.

    Raises:
        RecordingError: It names the layer by that number, also one that is missing.
    """
    if not isinstance(rows, dict) or not rows:
        raise RecordingError("it has no {LAYER: [expert of each slot]}")
    try:
        by_number = {int(str(number)): slots for number, slots in rows.items()}
    except ValueError as error:
        raise RecordingError(f"it is no {{LAYER: [expert of each slot]}}: {error}") from error
    if len(by_number) < len(rows):
        raise RecordingError("a layer is in it twice")
    numbers = sorted(by_number)
    _refuse_gap(numbers)
    return placement_of([by_number[number] for number in numbers], numbers)


def _refuse_gap(numbers: Sequence[int]) -> None:
    """A model has experts in every layer from one on, or in every second, third and so on."""
    distance = min((later - one for one, later in pairwise(numbers)), default=1)
    for one, later in pairwise(numbers):
        if later - one != distance:
            missing = one + distance
            raise RecordingError(f"layer {missing} is missing, between {one} and {later}")
