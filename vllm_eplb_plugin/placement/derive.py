# SPDX-License-Identifier: Apache-2.0
"""The single map's derivation, written in place by what the device is best at."""

import functools
import logging
from collections.abc import Callable

import torch

from vllm_eplb_plugin.placement.maps import derive_logical_maps

logger = logging.getLogger("vllm.eplb_plugin")

Deriver = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, int, int], None]
"""Takes the three maps, the first layer to derive and how many."""


def check_maps(
    physical_to_logical_map: torch.Tensor,
    logical_to_physical_map: torch.Tensor,
    logical_replica_count: torch.Tensor,
) -> None:
    """Check that a placement can be derived into the other two maps, where they stand.

    Raises:
        ValueError: Shapes that do not fit, fewer slots than logical experts, different devices or
            dtypes, or memory that cannot be written row by row.
    """
    maps = {
        "physical_to_logical_map": physical_to_logical_map,
        "logical_to_physical_map": logical_to_physical_map,
        "logical_replica_count": logical_replica_count,
    }
    names = f"{', '.join(maps)}"
    for what, values in (
        ("devices", [str(tensor.device) for tensor in maps.values()]),
        ("dtypes", [str(tensor.dtype) for tensor in maps.values()]),
    ):
        if len(set(values)) > 1:
            raise ValueError(f"{names} have the {what} {', '.join(values)}: they must be the same")
    if physical_to_logical_map.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"{names} are {physical_to_logical_map.dtype}, not int32 or int64")
    for (name, tensor), dimensions in zip(maps.items(), (2, 3, 2), strict=True):
        if tensor.dim() != dimensions or 0 in tensor.shape:
            raise ValueError(
                f"{name} has the shape {list(tensor.shape)}: it must have {dimensions} dimensions, "
                "none of them 0"
            )
    layers, physical = physical_to_logical_map.shape
    logical = logical_to_physical_map.shape[1]
    for name in ("logical_to_physical_map", "logical_replica_count"):
        if tuple(maps[name].shape[:2]) != (layers, logical):
            raise ValueError(
                f"{name} has the shape {list(maps[name].shape)}: with {layers} layers in "
                f"physical_to_logical_map and {logical} logical experts in "
                f"logical_to_physical_map it must begin with [{layers}, {logical}]"
            )
        if not maps[name].is_contiguous():
            raise ValueError(
                f"{name} has the strides {maps[name].stride()}: the model reads it where it "
                "stands, so it must be contiguous"
            )
    if physical < logical:
        raise ValueError(
            f"physical_to_logical_map has {physical} slots a layer for {logical} logical experts: "
            "it must have one for each"
        )
    if physical_to_logical_map.stride(1) != 1:
        raise ValueError(
            f"physical_to_logical_map has the strides {physical_to_logical_map.stride()}: each "
            "layer's row must be contiguous"
        )


def derive_into(
    physical_to_logical_map: torch.Tensor,
    logical_to_physical_map: torch.Tensor,
    logical_replica_count: torch.Tensor,
    layer: int | None = None,
) -> None:
    """Write both derived maps; every row, where it stands, without making the host wait.

    Args:
        physical_to_logical_map: ``[layers, physical]`` int32 or int64; see `check_maps`.
        logical_to_physical_map: ``[layers, logical, width]``; see `derive_logical_maps`.
        logical_replica_count: ``[layers, logical]``.
        layer: The layer to derive; None: all of them.
    """
    first, number = (0, physical_to_logical_map.shape[0]) if layer is None else (layer, 1)
    derive = deriver_for(physical_to_logical_map.device.type)
    derive(physical_to_logical_map, logical_to_physical_map, logical_replica_count, first, number)


@functools.cache
def deriver_for(device_type: str) -> Deriver:
    """The fastest derivation for a kind of device; all of them write the same."""
    try:
        if device_type == "cpu":
            return _compiled()
        if device_type in ("cuda", "xpu"):  # ROCm calls its devices cuda, too
            from vllm_eplb_plugin.placement.kernels import derive_layers

            return derive_layers
    except ImportError as error:  # vLLM brings both numba and Triton, but torch alone can do it
        logger.warning("EPLB commits are derived by torch operations, which is slower: %s", error)
    return _derive_by_torch


def _compiled() -> Deriver:
    from vllm_eplb_plugin.placement.compiled import derive_in_place

    def derive(
        placement: torch.Tensor, l2p: torch.Tensor, counts: torch.Tensor, first: int, number: int
    ) -> None:
        arrays = (tensor.numpy()[first : first + number] for tensor in (placement, l2p, counts))
        derive_in_place(*arrays)

    return derive


def _derive_by_torch(
    placement: torch.Tensor, l2p: torch.Tensor, counts: torch.Tensor, first: int, number: int
) -> None:
    layers = slice(first, first + number)
    new_l2p, new_counts = derive_logical_maps(placement[layers], *l2p.shape[-2:])
    l2p[layers].copy_(new_l2p)
    counts[layers].copy_(new_counts)
