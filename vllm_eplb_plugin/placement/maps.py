# SPDX-License-Identifier: Apache-2.0
"""Pure functions on placements.

A placement is one integer tensor, the physical-to-logical map (p2l) of shape
``[layers, physical]``: ``p2l[i, slot]`` is the logical expert in a slot of MoE layer ``i``, or -1
for a slot that holds none. Everything else the router reads follows from it.
"""

import torch

ALL_LAYERS = -1
"""In place of a layer's number, where there is only room for a number."""

EMPTY_SLOT = -1


class InvalidPlacementError(ValueError):
    """A placement must not be committed; the message names the rule that it breaks."""


def derive_logical_maps(
    physical_to_logical_map: torch.Tensor, num_logical_experts: int, width: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Derive where each logical expert's replicas are, without leaving the device.

    Args:
        physical_to_logical_map: ``[..., physical]``, int32 or int64, -1 where a slot is empty.
        num_logical_experts: Number of logical experts in a layer.
        width: Columns of the result, at least the largest replica count. It is not checked here,
            because that would make the host wait for the device: see `validate_placement`.

    Returns:
        l2p ``[..., logical, width]``: the slots of each logical expert in ascending order, -1
        behind them; and replica counts ``[..., logical]``. Both have the map's dtype and device.
        Equal to vLLM's ``compute_logical_maps`` (0.19.0 and later), padded to ``width``.
    """
    # Experts shifted by one, so that empty slots sort first and fall into row 0, cut off below.
    rows = physical_to_logical_map.long() + 1
    sorted_rows, slots = torch.sort(rows, dim=-1, stable=True)
    row_shape = (*rows.shape[:-1], num_logical_experts + 1)
    counts = torch.zeros(row_shape, dtype=torch.long, device=rows.device)
    counts.scatter_add_(-1, rows, torch.ones_like(rows))
    first = counts.cumsum(-1) - counts
    replica = torch.arange(rows.shape[-1], device=rows.device) - first.gather(-1, sorted_rows)
    # One spare column takes the empty slots, and whatever a wrong width has no room for.
    replica = torch.where(sorted_rows > 0, replica, width).clamp(max=width)
    table = torch.full((*row_shape, width + 1), EMPTY_SLOT, dtype=torch.long, device=rows.device)
    table.flatten(-2).scatter_(-1, sorted_rows * (width + 1) + replica, slots)
    dtype = physical_to_logical_map.dtype
    return table[..., 1:, :width].to(dtype), counts[..., 1:].to(dtype)


def validate_placement(
    physical_to_logical_map: torch.Tensor,
    shape: tuple[int, int],
    num_logical_experts: int,
    allow_empty_slots: bool = False,
) -> None:
    """Check a placement on the host before any weight moves.

    Args:
        physical_to_logical_map: What a policy returned, on the CPU.
        shape: The ``(layers, physical)`` it must have.
        num_logical_experts: Logical experts must be in ``range(num_logical_experts)``.
        allow_empty_slots: Whether -1 may occur, as it does under elastic EP.

    Raises:
        InvalidPlacementError: Wrong type, dtype, device, shape or range, or a logical expert
            that has no slot left.
    """
    placement = physical_to_logical_map
    if not isinstance(placement, torch.Tensor):
        raise InvalidPlacementError(f"a placement is a tensor, not {type(placement).__name__}")
    if placement.dtype not in (torch.int32, torch.int64):
        raise InvalidPlacementError(f"a placement is int32 or int64, not {placement.dtype}")
    if placement.device.type != "cpu":
        raise InvalidPlacementError(f"a placement is on the CPU, not on {placement.device}")
    if tuple(placement.shape) != shape:
        raise InvalidPlacementError(
            f"a placement has the shape [layers, physical] = {list(shape)}, "
            f"not {list(placement.shape)}"
        )
    lowest = EMPTY_SLOT if allow_empty_slots else 0
    outside = (placement < lowest) | (placement >= num_logical_experts)
    if outside.any():
        layer, slot = outside.nonzero()[0].tolist()
        raise InvalidPlacementError(
            f"layer {layer}, slot {slot} names logical expert {int(placement[layer, slot])}; "
            f"the range is {lowest} to {num_logical_experts - 1}"
        )
    missing = count_replicas(placement, num_logical_experts) == 0
    if missing.any():
        layer, expert = missing.nonzero()[0].tolist()
        raise InvalidPlacementError(
            f"layer {layer} has no slot for logical expert {expert}: "
            "every logical expert needs at least one"
        )


def count_replicas(physical_to_logical_map: torch.Tensor, num_logical_experts: int) -> torch.Tensor:
    """Count each logical expert's replicas, ``[layers, logical]`` int64, without empty slots."""
    rows = physical_to_logical_map.long() + 1
    counts = torch.zeros(rows.shape[0], num_logical_experts + 1, dtype=torch.long)
    return counts.scatter_add_(1, rows, torch.ones_like(rows))[:, 1:]


def count_changed_slots(old: torch.Tensor, new: torch.Tensor) -> list[int]:
    """Count the slots of each layer that hold another logical expert than before.

    Args:
        old: ``[layers, physical before]``.
        new: ``[layers, physical after]``; slots that only one of them has count as changed.
    """
    shared = min(old.shape[1], new.shape[1])
    only_one = max(old.shape[1], new.shape[1]) - shared
    changed = (old[:, :shared] != new[:, :shared]).sum(dim=1) + only_one
    return [int(count) for count in changed]
