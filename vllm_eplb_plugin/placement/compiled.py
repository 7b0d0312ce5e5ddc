# SPDX-License-Identifier: Apache-2.0
"""`maps.derive_logical_maps` for a CPU, compiled and in place."""

from vllm_eplb_plugin.placement.compiling import compiled

_SIGNATURES = [f"void({word}[:,:], {word}[:,:,:], {word}[:,:])" for word in ("i4", "i8")]


@compiled(_SIGNATURES)
def derive_in_place(placement, l2p, counts):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Write l2p ``[layers, logical, width]`` and counts ``[layers, logical]`` of a placement
    ``[layers, physical]``; all numpy arrays of one dtype, int32 or int64."""
    width = l2p.shape[2]
    l2p[:] = -1
    counts[:] = 0
    for layer in range(placement.shape[0]):
        for slot in range(placement.shape[1]):
            expert = placement[layer, slot]
            if expert >= 0:
                replica = counts[layer, expert]
                if replica < width:
                    l2p[layer, expert, replica] = slot
                counts[layer, expert] = replica + 1
