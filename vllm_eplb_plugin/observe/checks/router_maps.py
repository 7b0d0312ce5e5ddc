# SPDX-License-Identifier: Apache-2.0
"""Whether the maps that the router reads say what the placement says."""

import torch

from vllm_eplb_plugin.placement.maps import derive_logical_maps


def mismatched_experts(
    placement: torch.Tensor,
    logical_to_physical_map: torch.Tensor,
    logical_replica_count: torch.Tensor,
) -> list[int]:
    """Compare one layer's derived maps with what its placement says, derived again on the host.

    Answers alone cannot tell: a replica that the router never chooses changes no answer.

    Args:
        placement: ``[physical]``, the layer's p2l.
        logical_to_physical_map: ``[logical, width]``.
        logical_replica_count: ``[logical]``.

    Returns:
        The logical experts whose slots or replica count are wrong.
    """
    l2p, counts = derive_logical_maps(placement, *logical_to_physical_map.shape)
    wrong = (logical_to_physical_map != l2p).any(dim=-1) | (logical_replica_count != counts)
    return [int(expert) for expert in wrong.nonzero().flatten()]
