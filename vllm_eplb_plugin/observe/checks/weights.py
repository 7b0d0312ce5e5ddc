# SPDX-License-Identifier: Apache-2.0
"""Which expert's weights really are in a slot."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from vllm_eplb_plugin.observe.checks.digests import digest_parts, join_parts
from vllm_eplb_plugin.placement.maps import EMPTY_SLOT, derive_logical_maps


class WeightsError(RuntimeError):
    """Expert weights are not what the placement says they are."""


@dataclass(frozen=True)
class WeightLedger:
    """A ledger has the digest of every logical expert, gathered when the model was loaded."""

    digests: torch.Tensor
    """``[layers, logical]`` int64."""
    without_small: frozenset[int] = frozenset()
    """Layers of which only the weights proper are compared."""

    @classmethod
    def from_parts(
        cls,
        parts: torch.Tensor,
        physical_to_logical_map: torch.Tensor,
        num_logical_experts: int,
        model: str,
    ) -> "WeightLedger":
        """Build the ledger from every slot of every rank.

        Args:
            parts: ``[layers, physical, 2]``, from `digest_parts`.
            physical_to_logical_map: ``[layers, physical]``, the placement as loaded.
            num_logical_experts: Number of logical experts in a layer.
            model: Its name, for what is raised.

        Raises:
            WeightsError: Two replicas of one logical expert have different weights.
        """
        placement = physical_to_logical_map.long()
        check_replicas(parts[..., 0], placement, model)
        without_small = frozenset(unlike_replicas(parts[..., 1], placement)[:, 0].tolist())
        slots = join_parts(parts)
        for layer in without_small:
            slots[layer] = parts[layer, :, 0]
        digests = torch.zeros(placement.shape[0], num_logical_experts, dtype=torch.long)
        digests.scatter_(1, placement, slots)
        return cls(digests, without_small)

    def digest(self, layer: int, weights: Sequence[torch.Tensor]) -> torch.Tensor:
        """Compute ``[local physical]`` digests of one layer, to be compared with these."""
        parts = digest_parts(weights)
        return parts[:, 0] if layer in self.without_small else join_parts(parts)

    def mismatched_slots(
        self, layer: int, placement: torch.Tensor, local_digests: torch.Tensor, first_slot: int
    ) -> list[int]:
        """Find the global numbers of the local slots that do not hold what the placement names.

        Args:
            layer: MoE layer.
            placement: ``[physical]``, the layer's p2l on the CPU.
            local_digests: ``[local physical]``, from `digest`.
            first_slot: Global number of the rank's first slot.
        """
        local = placement[first_slot : first_slot + local_digests.shape[0]].long()
        expected = self.digests[layer].gather(0, local.clamp(min=0))
        wrong = (local != EMPTY_SLOT) & (expected != local_digests)
        return [first_slot + int(slot) for slot in wrong.nonzero().flatten()]


def replicated_slots(physical_to_logical_map: torch.Tensor) -> torch.Tensor:
    """Find the slots whose logical expert is in another slot, too.

    Args:
        physical_to_logical_map: ``[layers, physical]``.

    Returns:
        ``[layers, physical]`` bool.
    """
    placement = physical_to_logical_map.long()
    _, counts = derive_logical_maps(placement, _num_named(placement), 1)
    return (placement != EMPTY_SLOT) & (counts.gather(1, placement.clamp(min=0)) > 1)


def unlike_replicas(slot_digests: torch.Tensor, placement: torch.Tensor) -> torch.Tensor:
    """Find the slots that do not hold what the first slot of the same logical expert holds.

    Args:
        slot_digests: ``[layers, physical]`` int64; anything for a slot without another replica.
        placement: ``[layers, physical]`` int64.

    Returns:
        ``[n, 3]``: layer, slot and first slot, in ascending order.
    """
    l2p, _ = derive_logical_maps(placement, _num_named(placement), 1)
    first = l2p[..., 0].gather(1, placement.clamp(min=0)).clamp(min=0)
    unlike = (placement != EMPTY_SLOT) & (slot_digests.gather(1, first) != slot_digests)
    where = unlike.nonzero()
    return torch.cat([where, first[unlike][:, None]], dim=1)


def _num_named(placement: torch.Tensor) -> int:
    """At least as many logical experts as it names, and one."""
    return max(1, int(placement.max()) + 1)


def check_replicas(slot_digests: torch.Tensor, placement: torch.Tensor, model: str) -> None:
    """Compare replicas as they were loaded; see `unlike_replicas`.

    Raises:
        WeightsError: Some have other weights than the first replica of their logical expert.
    """
    unlike = unlike_replicas(slot_digests, placement)
    if len(unlike):
        layer, slot, first = unlike[0].tolist()
        others = f" (and {len(unlike) - 1} more slots)" if len(unlike) > 1 else ""
        raise WeightsError(
            f"layer {layer} of {model}: slot {slot} was loaded with other weights than slot "
            f"{first}, though both hold logical expert {int(placement[layer, slot])}{others}. The "
            "model's loader does not fill redundant slots: run without redundant experts, or "
            "report the model."
        )
