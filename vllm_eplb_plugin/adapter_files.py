# SPDX-License-Identifier: Apache-2.0
"""Which weights of a LoRA adapter are for routed experts, and why those are refused with EPLB."""

import json
from collections.abc import Iterable
from pathlib import Path

import torch

_SAFETENSORS = "adapter_model.safetensors"
_PICKLED = ("adapter_model.bin", "adapter_model.pt")


class ExpertAdapterError(ValueError):
    """An adapter has weights for experts that EPLB moves."""

    def __init__(self, adapter: str, names: list[str]) -> None:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        super().__init__(
            f"the LoRA adapter {adapter!r} has weights for routed experts ({names[0]}{more}), and "
            "EPLB is on: vLLM keeps an adapter's weights where experts were at first, so they "
            "would be added to other experts. Serve it without --enable-eplb, or train an adapter "
            "without the experts; one for attention, dense layers and shared experts works."
        )


def refuse_expert_weights(adapter: str, names: Iterable[str]) -> None:
    """Compare an adapter's weights with what EPLB moves.

    Args:
        adapter: What the user calls it.
        names: Of its weights or modules, as in its file or as vLLM calls them.

    Raises:
        ExpertAdapterError: One is for routed experts; also if all experts share a factor
            (``enable_moe_shared_loras``), for the other factor is each expert's own.
    """
    if found := sorted(name for name in names if "experts" in name.split(".")):
        raise ExpertAdapterError(adapter, found)


def names_in(folder: Path) -> list[str]:
    """Read the names of an adapter's weights, and no weights.

    All of them, on every rank: vLLM leaves out other ranks' experts as it loads.

    Returns:
        Nothing where there is no file that vLLM would read: it says so itself.
    """
    if (file := folder / _SAFETENSORS).is_file():
        with file.open("rb") as opened:
            header = opened.read(int.from_bytes(opened.read(8), "little"))
        return [name for name in json.loads(header) if name != "__metadata__"]
    for pickled in _PICKLED:
        if (file := folder / pickled).is_file():
            return list(torch.load(file, map_location="meta", weights_only=True))
    return []
