# SPDX-License-Identifier: Apache-2.0
"""Which expert's weights really are in a slot, told by digests."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from vllm_eplb_plugin.placement.maps import EMPTY_SLOT

# Odd, so that changing any one word always changes the sum; from the golden ratio, as splitmix64.
_MULTIPLIER = -7046029254386353131


class WeightsError(RuntimeError):
    """Expert weights are not what the placement says they are."""


def digest_slots(weights: Sequence[torch.Tensor]) -> torch.Tensor:
    """Compute a number for each slot of a layer, equal only if every byte is equal, in effect.

    Args:
        weights: The layer's weight tensors, each ``[slots, ...]`` and contiguous, of any dtype.

    Returns:
        ``[slots]`` int64 on the CPU. The host waits for the device.
    """
    total = torch.zeros(weights[0].shape[0], dtype=torch.long)
    for tensor in weights:
        rows = tensor.detach().reshape(tensor.shape[0], -1).contiguous().view(torch.uint8)
        rows = torch.nn.functional.pad(rows, (0, -rows.shape[1] % 8)).view(torch.long)
        position = (2 * torch.arange(rows.shape[1], device=rows.device) + 1) * _MULTIPLIER
        # Slot by slot: the product of all slots at once would double the layer's memory.
        sums = [(row * position).sum() for row in rows]
        total = total * _MULTIPLIER + torch.stack(sums).cpu()
    return total


@dataclass(frozen=True)
class WeightLedger:
    """A ledger has the digest of every logical expert, gathered when the model was loaded."""

    digests: torch.Tensor
    """``[layers, logical]`` int64."""

    @classmethod
    def from_slots(
        cls,
        slot_digests: torch.Tensor,
        physical_to_logical_map: torch.Tensor,
        num_logical_experts: int,
    ) -> "WeightLedger":
        """Build the ledger from every slot of every rank.

        Args:
            slot_digests: ``[layers, physical]`` int64.
            physical_to_logical_map: ``[layers, physical]``, the placement as loaded.
            num_logical_experts: Number of logical experts in a layer.

        Raises:
            WeightsError: Two replicas of one logical expert have different weights.
        """
        placement = physical_to_logical_map.long()
        digests = torch.zeros(placement.shape[0], num_logical_experts, dtype=torch.long)
        digests.scatter_(1, placement, slot_digests)
        different = digests.gather(1, placement) != slot_digests
        if different.any():
            layer, slot = different.nonzero()[0].tolist()
            raise WeightsError(
                f"layer {layer}: slot {slot} was loaded with other weights than another replica "
                f"of its logical expert {int(placement[layer, slot])}. The model's loader does "
                "not fill redundant slots: run without redundant experts, or report the model."
            )
        return cls(digests)

    def mismatched_slots(
        self, layer: int, placement: torch.Tensor, local_digests: torch.Tensor, first_slot: int
    ) -> list[int]:
        """Find the global numbers of the local slots that do not hold what the placement names.

        Args:
            layer: MoE layer.
            placement: ``[physical]``, the layer's p2l on the CPU.
            local_digests: ``[local physical]``, from `digest_slots`.
            first_slot: Global number of the rank's first slot.
        """
        local = placement[first_slot : first_slot + local_digests.shape[0]].long()
        expected = self.digests[layer].gather(0, local.clamp(min=0))
        wrong = (local != EMPTY_SLOT) & (expected != local_digests)
        return [first_slot + int(slot) for slot in wrong.nonzero().flatten()]
