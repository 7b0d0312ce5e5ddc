# SPDX-License-Identifier: Apache-2.0
"""`maps.derive_logical_maps` for CUDA, ROCm and XPU: one Triton kernel, in place."""

import torch
import triton
import triton.language as tl

from vllm_eplb_plugin.placement.maps import EMPTY_SLOT

_EMPTY: tl.constexpr = tl.constexpr(EMPTY_SLOT)


_NUMBERS = ["first_layer", "num_physical", "placement_stride", "num_logical", "width"]


# The first layer differs from commit to commit: specialized, it would compile while serving.
@triton.jit(do_not_specialize=_NUMBERS)  # type: ignore[untyped-decorator]
def _derive(  # type: ignore[no-untyped-def]
    placement,  # noqa: ANN001
    l2p,  # noqa: ANN001
    counts,  # noqa: ANN001
    first_layer,  # noqa: ANN001
    num_physical,  # noqa: ANN001
    placement_stride,  # noqa: ANN001
    num_logical,  # noqa: ANN001
    width,  # noqa: ANN001
    slots_block: tl.constexpr,
    width_block: tl.constexpr,
) -> None:
    layer = first_layer + tl.program_id(0)
    expert = tl.program_id(1)
    slots = tl.arange(0, slots_block)
    row = tl.load(
        placement + layer.to(tl.int64) * placement_stride + slots,
        mask=slots < num_physical,
        other=_EMPTY,
    )
    is_replica = row == expert
    replica = tl.cumsum(is_replica.to(tl.int32), axis=0) - 1
    count = tl.sum(is_replica.to(tl.int32), axis=0)
    target = layer.to(tl.int64) * num_logical + expert
    tl.store(counts + target, count)
    columns = l2p + target * width
    tl.store(columns + replica, slots, mask=is_replica & (replica < width))
    for start in range(0, width, width_block):
        column = start + tl.arange(0, width_block)
        tl.store(columns + column, _EMPTY, mask=(column >= count) & (column < width))


def derive_layers(
    placement: torch.Tensor,
    l2p: torch.Tensor,
    counts: torch.Tensor,
    first_layer: int,
    num_layers: int,
) -> None:
    """Write l2p and counts of some layers, on the current stream; the host only launches.

    Each program writes one logical expert's row and count, so every element is written once.

    Args:
        placement: ``[layers, physical]`` int32 or int64; rows are contiguous.
        l2p: ``[layers, logical, width]``, contiguous.
        counts: ``[layers, logical]``, contiguous.
        first_layer: The first layer that is derived.
        num_layers: How many are.
    """
    num_physical = placement.shape[1]
    num_logical, width = l2p.shape[1:]
    slots_block = triton.next_power_of_2(num_physical)
    _derive[(num_layers, num_logical)](
        placement,
        l2p,
        counts,
        first_layer,
        num_physical,
        placement.stride(0),
        num_logical,
        width,
        slots_block=slots_block,
        width_block=min(triton.next_power_of_2(width), 1024),
        num_warps=4 if slots_block > 256 else 1,
    )
