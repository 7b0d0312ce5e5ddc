# SPDX-License-Identifier: Apache-2.0
"""What a policy or a step answered, before compiled code reads it without looking."""

import numpy as np

from vllm_eplb_plugin.placement.maps import InvalidPlacementError
from vllm_eplb_plugin.planning.problem import Integers, Problem


def require_placement(problem: Problem, answer: object, what: str, by: object) -> Integers:
    """Return it as int64 ``[layers, slots]``, contiguous.

    Args:
        problem: What was planned.
        answer: Anything.
        what: ``the policy`` or ``the step``.
        by: Which one.

    Raises:
        InvalidPlacementError: It is none, or an expert has no slot.
    """
    name = getattr(by, "__name__", type(by).__name__)
    if not isinstance(answer, np.ndarray) or answer.dtype.kind not in "iu":
        kind = f"{answer.dtype}" if isinstance(answer, np.ndarray) else type(answer).__name__
        raise InvalidPlacementError(f"{what} {name} answers {kind}, no array of integers")
    if answer.shape != problem.old.shape:
        raise InvalidPlacementError(
            f"{what} {name} answers the shape {list(answer.shape)}, not [layers, slots], "
            f"{list(problem.old.shape)}"
        )
    placement: Integers = np.ascontiguousarray(answer, np.int64)
    outside = (placement < 0) | (placement >= problem.num_experts)
    if outside.any():
        layer, slot = (int(index[0]) for index in np.nonzero(outside))
        raise InvalidPlacementError(
            f"{what} {name} puts {placement[layer, slot]} in slot {slot} of layer {layer}, where "
            f"there are experts 0 to {problem.num_experts - 1}"
        )
    has_slot = np.zeros((problem.num_layers, problem.num_experts), np.bool_)
    np.put_along_axis(has_slot, placement, True, axis=1)
    if not has_slot.all():
        layer, expert = (int(index[0]) for index in np.nonzero(~has_slot))
        raise InvalidPlacementError(
            f"{what} {name} leaves expert {expert} of layer {layer} without a slot"
        )
    return placement
