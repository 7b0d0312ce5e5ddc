# SPDX-License-Identifier: Apache-2.0
"""The single map's derivation, written in place by what the device is best at."""

import functools
from collections.abc import Callable

import torch

from vllm_eplb_plugin.placement.maps import derive_logical_maps


def derive_into(
    physical_to_logical_map: torch.Tensor,
    logical_to_physical_map: torch.Tensor,
    logical_replica_count: torch.Tensor,
) -> None:
    """Write both derived maps; every row, where it stands, without making the host wait.

    Args:
        physical_to_logical_map: ``[layers, physical]``, or one layer's ``[physical]``.
        logical_to_physical_map: ``[..., logical, width]``; see `derive_logical_maps`.
        logical_replica_count: ``[..., logical]``.

    Raises:
        ValueError: The three are on different devices.
    """
    maps = (physical_to_logical_map, logical_to_physical_map, logical_replica_count)
    devices = [tensor.device for tensor in maps]
    if len(set(devices)) > 1:
        raise ValueError(
            "physical_to_logical_map, logical_to_physical_map and logical_replica_count are on "
            f"{', '.join(map(str, devices))}: they must be on one device"
        )
    compiled = _compiled() if devices[0].type == "cpu" else None
    if compiled is not None and len({tensor.dtype for tensor in maps}) == 1:
        if physical_to_logical_map.dim() == 1:
            maps = tuple(tensor.unsqueeze(0) for tensor in maps)  # type: ignore[assignment]
        compiled(*(tensor.numpy() for tensor in maps))
        return
    l2p, counts = derive_logical_maps(physical_to_logical_map, *logical_to_physical_map.shape[-2:])
    logical_to_physical_map.copy_(l2p)
    logical_replica_count.copy_(counts)


@functools.cache
def _compiled() -> Callable[..., None] | None:
    try:
        from vllm_eplb_plugin.placement.compiled import derive_in_place
    except ImportError:  # numba comes with vLLM, but torch alone can do it
        return None
    compiled: Callable[..., None] = derive_in_place
    return compiled
