# SPDX-License-Identifier: Apache-2.0
"""How uneven a model's experts are loaded, and what EPLB makes of it, for each MoE layer.

Reads the questions and answers that an evaluation kept, and counts with transformers which experts
their tokens go to. The placement is planned by vLLM's default policy from the first half of the
questions, and judged on the second half.

    python scripts/expert_load.py eval/models/gsm-tiny runs/cpu/arms/off/samples.jsonl
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from transformers import AutoModelForCausalLM, AutoTokenizer
from vllm.distributed.eplb.policy.default import DefaultEplbPolicy

from vllm_eplb_plugin.placement.balance import rank_loads


def count_loads(model_folder: Path, texts: list[str]) -> torch.Tensor:
    """Tokens of each text that each expert gets, int64 ``[texts, MoE layers, experts]``."""
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32).eval()
    gates = [layer.mlp.gate for layer in model.model.layers if hasattr(layer.mlp, "gate")]
    counted: list[torch.Tensor] = []

    def count(gate: Any, _: Any, output: tuple[torch.Tensor, ...]) -> None:
        chosen = output[2]
        counted.append(torch.bincount(chosen.flatten(), minlength=gate.num_experts))

    for gate in gates:
        gate.register_forward_hook(count)
    with torch.no_grad():
        for text in track(texts, "counting", console=Console(stderr=True)):
            # Of the last token nothing is computed: it was the last to be generated.
            tokens = tokenizer(text, return_tensors="pt").input_ids[:, :-1]
            model(input_ids=tokens, use_cache=False)
    return torch.stack(counted).view(len(texts), len(gates), -1)


def balancedness(load: torch.Tensor, placement: torch.Tensor, ranks: int) -> list[float]:
    """Of each layer: mean over largest rank load."""
    loads = rank_loads(load, placement, ranks)
    return (loads.mean(1) / loads.amax(1)).tolist()


class LayerLoad(NamedTuple):
    """How the experts of one layer are loaded."""

    skew: float
    """Load of the busiest expert over the mean."""
    without_eplb: float
    """Balancedness of the ranks."""
    with_eplb: float


def layer_loads(loads: torch.Tensor, ranks: int, redundant: int) -> list[LayerLoad]:
    """One for each layer.

    Args:
        loads: From `count_loads`, of two texts or more.
        ranks: EP ranks.
        redundant: Redundant experts of EPLB.
    """
    half = len(loads) // 2
    planned_from, load = loads[:half].sum(0), loads[half:].sum(0)
    layers, experts = load.shape
    linear = torch.arange(experts).expand(layers, experts)
    planned = DefaultEplbPolicy.rebalance_experts(planned_from, experts + redundant, 1, 1, ranks)
    skews = (load.amax(1) / load.double().mean(1)).tolist()
    balances = (balancedness(load, placement, ranks) for placement in (linear, planned))
    return [LayerLoad(*figures) for figures in zip(skews, *balances, strict=True)]


def load_table(layers: Sequence[LayerLoad], redundant: int) -> Table:
    """One line a layer."""
    table = Table("MoE layer", "busiest expert / mean", "without EPLB", f"EPLB, {redundant} more")
    for number, layer in enumerate(layers):
        table.add_row(
            str(number),
            f"{layer.skew:.2f}",
            f"{layer.without_eplb:.3f}",
            f"{layer.with_eplb:.3f}",
        )
    return table


def main(arguments: list[str] | None = None) -> int:
    """Count and print; 2 when the samples cannot be read."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("samples", type=Path, help="samples.jsonl of an arm")
    parser.add_argument("--task", default="gsm_tiny", help="default: %(default)s")
    parser.add_argument("--ranks", type=int, default=2, help="EP ranks, default: %(default)s")
    parser.add_argument("--redundant", type=int, default=4, help="default: %(default)s")
    chosen = parser.parse_args(arguments)
    try:
        lines = chosen.samples.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        print(f"expert_load: cannot read {chosen.samples}: {error.strerror}", file=sys.stderr)
        return 2
    samples = [json.loads(line) for line in lines]
    texts = [one["prompt"] + one["text"] for one in samples if one["task"] == chosen.task]
    if len(texts) < 2:
        print(
            f"expert_load: {chosen.samples} has {len(texts)} answers to {chosen.task}: 2 or more "
            "are needed, to plan from some and judge on others",
            file=sys.stderr,
        )
        return 2
    loads = count_loads(chosen.model, texts)
    layers = layer_loads(loads, chosen.ranks, chosen.redundant)
    Console().print(load_table(layers, chosen.redundant))
    return 0


if __name__ == "__main__":
    sys.exit(main())
