# SPDX-License-Identifier: Apache-2.0
"""Expert weights of a rank in which every row says what it is, and whether it is whole."""

from collections.abc import Iterator

import torch

from vllm_eplb_plugin.bench.result import BenchError
from vllm_eplb_plugin.bench.transfer.expert_sizes import ExpertSizes, megabytes
from vllm_eplb_plugin.bench.transfer.placements import Placement

_MOST_EXPERTS, _MOST_TENSORS = 1 << 16, 1 << 4


class HeldWeights:
    """The layers of one rank, and the buffer that one of them is received into."""

    def __init__(
        self, sizes: ExpertSizes, layers: int, slots: int, rank: int, device: torch.device
    ) -> None:
        """Take the memory; ``rank`` says which slots of a placement are here."""
        self._first, self._slots = rank * slots, slots
        self.layers = [list(_layer(sizes, slots, device)) for _ in range(layers)]
        self.buffer = list(_layer(sizes, slots, device))
        longest = max(tensor.nbytes for tensor in sizes.tensors)
        self._words = torch.arange(longest // 8, dtype=torch.int64, device=device)

    def fill(self, placement: Placement) -> None:
        """Write into every slot of all layers what its expert is."""
        for layer in range(len(self.layers)):
            for row, expected in self._rows(layer, placement):
                row.copy_(expected)

    def check(self, layer: int, placement: Placement, after: str) -> None:
        """Compare every byte of a layer with what the placement says.

        Raises:
            BenchError: An expert is not where it should be, or not whole.
        """
        rows = self._rows(layer, placement)
        for number, (row, expected) in enumerate(rows):
            if not torch.equal(row, expected):
                slot = self._first + number // len(self.buffer)
                raise BenchError(
                    f"{after}: slot {slot} of layer {layer} does not hold expert "
                    f"{placement[slot]} (tensor {number % len(self.buffer)})"
                )

    def _rows(
        self, layer: int, placement: Placement
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Every row as words, with what it should be; a row more is in memory at a time."""
        for slot in range(self._slots):
            expert = int(placement[self._first + slot])
            for number, tensor in enumerate(self.layers[layer]):
                words = tensor[slot].view(torch.uint8).view(torch.int64)
                key = (layer * _MOST_EXPERTS + expert) * _MOST_TENSORS + number
                yield words, self._words[: len(words)] + (key << 32)


def _layer(sizes: ExpertSizes, slots: int, device: torch.device) -> Iterator[torch.Tensor]:
    """``[slots, numbers]``, as vLLM's ``get_expert_weights`` flattens them."""
    for tensor in sizes.tensors:
        dtype = getattr(torch, tensor.dtype)
        yield torch.empty((slots, tensor.numbers), dtype=dtype, device=device)


def layers_that_fit(sizes: ExpertSizes, slots: int, free: float) -> int:
    """How many of a model's layers the memory takes, beside the buffer and a row to compare.

    Args:
        sizes: Of its experts.
        slots: Of a rank.
        free: Bytes of the device for this rank.

    Raises:
        BenchError: Not even two.
    """
    layer = slots * sizes.expert_bytes
    fit = int((free - 2 * sizes.expert_bytes) // layer) - 1
    if fit < 2:
        raise BenchError(
            f"{sizes.name}: two layers of {slots} slots and a buffer take "
            f"{megabytes(3 * layer)} of a rank, of {megabytes(free)} that are free: give fewer "
            "--slots"
        )
    return min(fit, sizes.layers)
