# SPDX-License-Identifier: Apache-2.0
"""The single map's derivation, written in place by what the device is best at."""

import functools
from typing import TYPE_CHECKING

import torch

from vllm_eplb_plugin.placement.fast_way import FastWay, describe, import_problem
from vllm_eplb_plugin.placement.maps import derive_logical_maps

if TYPE_CHECKING:
    from vllm_eplb_plugin.placement.kernels import Kernel


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
    names = ", ".join(maps)
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

    Where there is a kernel (see `kernel_for`), it does the same with less work.

    Args:
        physical_to_logical_map: ``[layers, physical]`` int32 or int64; see `check_maps`.
        logical_to_physical_map: ``[layers, logical, width]``; see `derive_logical_maps`.
        logical_replica_count: ``[layers, logical]``.
        layer: The layer to derive; None: all of them.
    """
    maps = (physical_to_logical_map, logical_to_physical_map, logical_replica_count)
    if physical_to_logical_map.device.type == "cpu" and is_compiled():
        _derive_on_the_host(*maps, layer)
    else:
        _derive_by_torch(*maps, layer)


def kernel_for(
    physical_to_logical_map: torch.Tensor,
    logical_to_physical_map: torch.Tensor,
    logical_replica_count: torch.Tensor,
) -> "Kernel | None":
    """Compile the kernel for maps on an accelerator; None on a CPU, or where Triton cannot."""
    # ROCm calls its devices cuda, too.
    if physical_to_logical_map.device.type not in ("cuda", "xpu"):
        return None
    maps = (physical_to_logical_map, logical_to_physical_map, logical_replica_count)
    way, kernel = _try_kernel(*maps)
    return kernel if way.is_open() else None


def kernel_way(device: torch.device) -> FastWay:
    """Try whether Triton can make commits on an accelerator, with the smallest maps."""
    return _try_kernel(*(torch.zeros([1] * n, dtype=torch.long, device=device) for n in (2, 3, 2)))[
        0
    ]


def _try_kernel(*maps: torch.Tensor) -> "tuple[FastWay, Kernel | None]":
    kernel = problem = None
    try:
        from vllm_eplb_plugin.placement.kernels import Kernel

        kernel = Kernel(*maps)
        kernel.warm_up()
    except Exception as error:  # of Triton, its compilers, or the file system of its cache
        problem = describe(error)
    return FastWay("commits by Triton", "EPLB commits by torch operations", problem), kernel


def compiled_way() -> FastWay:
    """Try whether numba can make commits on a CPU."""
    problem = import_problem("vllm_eplb_plugin.placement.compiled")
    return FastWay("commits by numba", "EPLB commits by torch operations", problem)


@functools.cache
def is_compiled() -> bool:
    """Say whether commits on a CPU are made by numba."""
    return compiled_way().is_open()


def _derive_on_the_host(
    placement: torch.Tensor, l2p: torch.Tensor, counts: torch.Tensor, layer: int | None
) -> None:
    from vllm_eplb_plugin.placement.compiled import derive_in_place

    layers = slice(None) if layer is None else slice(layer, layer + 1)
    derive_in_place(*(tensor.numpy()[layers] for tensor in (placement, l2p, counts)))


def _derive_by_torch(
    placement: torch.Tensor, l2p: torch.Tensor, counts: torch.Tensor, layer: int | None
) -> None:
    layers = slice(None) if layer is None else slice(layer, layer + 1)
    new_l2p, new_counts = derive_logical_maps(placement[layers], *l2p.shape[-2:])
    l2p[layers].copy_(new_l2p)
    counts[layers].copy_(new_counts)
