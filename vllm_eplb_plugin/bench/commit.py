# SPDX-License-Identifier: Apache-2.0
"""How long a commit takes: vLLM's own functions and the plugin's, on the same placements."""

from typing import Any

import torch

from vllm_eplb_plugin.bench.result import BenchError, Row
from vllm_eplb_plugin.bench.shapes import Shape
from vllm_eplb_plugin.bench.stand_in import group_of, model_state
from vllm_eplb_plugin.bench.timing import WARM_UP, alternate
from vllm_eplb_plugin.compatibility import installed_support
from vllm_eplb_plugin.engine.commit_points import commit_layer, commit_model
from vllm_eplb_plugin.engine.session import Session
from vllm_eplb_plugin.observe.identity import Source
from vllm_eplb_plugin.settings import Settings

STOCK_WIDTH = 1024
"""Columns of vLLM's l2p."""


def bench_commit(shape: Shape, rounds: int, device: torch.device) -> list[Row]:
    """Measure commits of one layer, as in async mode, and of a whole map, as in sync mode.

    Raises:
        BenchError: vLLM 0.18, which has no function for it, or results that differ.
    """
    from vllm.distributed.eplb import eplb_state

    release = installed_support().release
    if release.startswith("0.18."):
        raise BenchError(
            f"vLLM {release} commits three maps that it made before: compare it with "
            "scripts/compare_maps.py"
        )
    generator = torch.Generator().manual_seed(0)
    placements = [_placement(shape, generator) for _ in range(WARM_UP + rounds)]
    stock = model_state(shape, STOCK_WIDTH, device)
    plugin = model_state(shape, shape.redundant + 1, device)
    Session(Settings(), Source(0, 0, 0)).add(plugin, group_of(shape))
    takes_whole_map = release.startswith("0.19.")

    def stock_layer(number: int) -> None:
        layer = number % shape.layers
        new = placements[number] if takes_whole_map else placements[number][layer]
        eplb_state._commit_eplb_maps_for_layer(stock, new, layer)

    def plugin_layer(number: int) -> None:
        layer = number % shape.layers
        commit_layer(plugin, placements[number][layer], layer)

    def stock_all(number: int) -> None:
        eplb_state._commit_eplb_maps(stock, placements[number])

    def plugin_all(number: int) -> None:
        commit_model(plugin, placements[number])

    rows = []
    for what, ways in (
        ("one layer", {"stock": stock_layer, "plugin": plugin_layer}),
        ("whole map", {"stock": stock_all, "plugin": plugin_all}),
    ):
        times = alternate(ways, rounds, device)
        rows.append(Row(str(shape), what, times["stock"].summary(), times["plugin"].summary()))
    _compare(stock, plugin)
    one, other = ({"bytes": state.logical_to_physical_map.nbytes} for state in (stock, plugin))
    rows.append(Row(str(shape), "memory of l2p", one, other))
    return rows


def _placement(shape: Shape, generator: torch.Generator) -> torch.Tensor:
    """Every logical expert once, and as many more, in a random order."""
    rows = []
    for _ in range(shape.layers):
        more = torch.randint(0, shape.logical, (shape.redundant,), generator=generator)
        slots = torch.cat([torch.arange(shape.logical), more])
        rows.append(slots[torch.randperm(shape.slots, generator=generator)])
    return torch.stack(rows)


def _compare(stock: Any, plugin: Any) -> None:
    width = plugin.logical_to_physical_map.shape[-1]
    same = torch.equal(
        stock.logical_to_physical_map[..., :width], plugin.logical_to_physical_map
    ) and torch.equal(stock.logical_replica_count, plugin.logical_replica_count)
    if not same:
        raise BenchError("vLLM and the plugin derived different maps from the same placement")
