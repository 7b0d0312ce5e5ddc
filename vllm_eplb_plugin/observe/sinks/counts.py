# SPDX-License-Identifier: Apache-2.0
"""Counts what happens to placements, model by model, for whoever asks how EPLB is."""

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np

from vllm_eplb_plugin.observe.event_heads import Mode
from vllm_eplb_plugin.observe.events import (
    LayerCommitted,
    LoadMeasured,
    Placement,
    RearrangementPlanned,
    RearrangementStarted,
)
from vllm_eplb_plugin.observe.progress import Outcome
from vllm_eplb_plugin.observe.status import ModelStatus
from vllm_eplb_plugin.placement.survival import survivable_ranks

_OUTCOMES: dict[str, Outcome] = {f"rearrangement_{name}": name for name in get_args(Outcome)}
"""By the kind of the event that tells of it."""


@dataclass(frozen=True)
class _Moving:
    """What is received in the rearrangement that was planned last."""

    experts: list[int]
    """For each layer."""
    size: float
    """Bytes of an expert; the mean, if layers differ."""


class Counts:
    """A sink that keeps figures instead of lines; any thread may read them."""

    def __init__(self) -> None:
        self._models: dict[int, ModelStatus] = {}
        self._moving: dict[int, _Moving] = {}

    @property
    def models(self) -> list[ModelStatus]:
        """What was counted so far."""
        models = self._models
        return [models[index] for index in sorted(models)]

    def write(self, line: Mapping[str, Any]) -> Iterator[None]:
        """Count one event.

        Yields:
            Between layers of a placement.
        """
        if "model_index" not in line:
            return
        index, kind = line["model_index"], line["event"]
        model = self._models.get(index) or _nothing_yet(line["model"], index)
        if kind == RearrangementStarted.kind:
            model = replace(model, started=model.started + 1)
        elif kind == LoadMeasured.kind:
            names = ("balancedness", "balancedness_overall", "tokens")
            model = replace(model, **{name: line[name] for name in names})
        elif kind == RearrangementPlanned.kind:
            model = self._planned(model, line)
        elif kind == LayerCommitted.kind:
            model = self._committed(model, line["layer"])
        elif kind == Placement.kind:
            model = yield from _placed(model, line)
        elif kind in _OUTCOMES:
            model = _ended(model, _OUTCOMES[kind], line["mode"], line["seconds"])
        # Whoever reads has the old models or the new ones.
        self._models = {**self._models, index: model}

    def close(self) -> None:
        """Nothing is held."""

    def _planned(self, model: ModelStatus, line: Mapping[str, Any]) -> ModelStatus:
        experts: list[int] = line["experts_received"]
        size = sum(line["bytes_received"]) / max(sum(experts), 1)
        self._moving[model.model_index] = _Moving(experts, size)
        return replace(
            model,
            layers_skipped=model.layers_skipped + len(experts) - line["layers_changed"],
            balancedness_expected=line["balancedness_expected"],
        )

    def _committed(self, model: ModelStatus, layer: int) -> ModelStatus:
        moving = self._moving[model.model_index]
        experts = moving.experts[layer]
        return replace(
            model,
            experts_received=model.experts_received + experts,
            bytes_received=model.bytes_received + round(experts * moving.size),
        )


def _nothing_yet(name: str, index: int) -> ModelStatus:
    return ModelStatus(
        model=name,
        model_index=index,
        layers=0,
        outcomes={},
        seconds=0.0,
        last_seconds=None,
        experts_received=0,
        bytes_received=0,
        layers_skipped=0,
        balancedness_expected=None,
        balancedness=None,
        survivable=None,
    )


def _placed(model: ModelStatus, line: Mapping[str, Any]) -> Generator[None, None, ModelStatus]:
    placement, survivable = line["physical_to_logical_map"], set(range(line["num_ranks"]))
    for slots in placement:
        survivable &= set(survivable_ranks([np.array(slots)], line["num_ranks"]))
        yield
    return replace(model, layers=len(placement), survivable=sorted(survivable))


def _ended(model: ModelStatus, outcome: Outcome, mode: Mode, seconds: float) -> ModelStatus:
    of_mode = model.by_mode.get(mode, {})
    return replace(
        model,
        outcomes={**model.outcomes, outcome: model.outcomes.get(outcome, 0) + 1},
        by_mode={**model.by_mode, mode: {**of_mode, outcome: of_mode.get(outcome, 0) + 1}},
        seconds=model.seconds + seconds,
        last_seconds=seconds,
    )
