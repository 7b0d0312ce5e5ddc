# SPDX-License-Identifier: Apache-2.0
"""Experts that stay on their rank stay in their slot: then nothing is copied within a rank."""

import numpy as np

from vllm_eplb_plugin.placement.compiling import compiled


@compiled("void(i8[:,::1], i8[:,::1], i8)", nogil=True)
def keep_slots(placement, old, ranks):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Order the experts of each rank so, in place.

    Args:
        placement: i8 ``[layers, slots]``.
        old: i8 ``[layers, slots or more]``, the placement in force.
        ranks: Ranks that hold the slots.
    """
    layers, slots = placement.shape
    size = slots // ranks
    for layer in range(layers):
        for start in range(0, slots, size):
            new = placement[layer, start : start + size].copy()
            used = np.zeros(size, np.bool_)
            kept = np.zeros(size, np.bool_)
            for slot in range(size):
                for candidate in range(size):
                    if not used[candidate] and new[candidate] == old[layer, start + slot]:
                        placement[layer, start + slot] = new[candidate]
                        used[candidate] = kept[slot] = True
                        break
            candidate = 0
            for slot in range(size):
                if not kept[slot]:
                    while used[candidate]:
                        candidate += 1
                    placement[layer, start + slot] = new[candidate]
                    used[candidate] = True
