# SPDX-License-Identifier: Apache-2.0
"""The single map's meaning in plain Python: what every implementation is compared with."""


def derive(
    physical_to_logical: list[int], num_logical: int, width: int
) -> tuple[list[list[int]], list[int]]:
    """l2p rows, filled with -1 up to the width, and replica counts of one layer."""
    slots: list[list[int]] = [[] for _ in range(num_logical)]
    for slot, expert in enumerate(physical_to_logical):
        if expert >= 0:
            slots[expert].append(slot)
    return [row + [-1] * (width - len(row)) for row in slots], [len(row) for row in slots]
