# SPDX-License-Identifier: Apache-2.0
"""What a metric is, and how its samples are computed."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from vllm_eplb_plugin.observe.metrics.host import Stage
from vllm_eplb_plugin.observe.status import ModelStatus, RankStatus

Rows = Iterable[tuple[tuple[object, ...], float]]
"""Values of a metric's own labels, and of itself."""

OVER_RANKS: dict[str, Callable[[Iterable[float]], float]] = {"max": max, "min": min, "sum": sum}


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A metric is one family of series."""

    name: str
    kind: Literal["gauge", "counter"]
    help: str
    """A sentence."""
    field: str
    """What it is read from."""
    labels: tuple[str, ...] = ()
    """Its own."""
    only_with: Literal["by_rank", "by_layer"] | None = None
    """The setting that asks for it."""


@dataclass(frozen=True, kw_only=True)
class OfStage(Metric):
    """It tells something of all ranks together."""

    rows: Callable[[Stage], Rows]


@dataclass(frozen=True, kw_only=True)
class OfModel(Metric):
    """It tells something of one model."""

    rows: Callable[[ModelStatus, RankStatus], Rows]
    """From the model, and the rank that tells of it."""


@dataclass(frozen=True, kw_only=True)
class OfRank(Metric):
    """It tells something of each rank, or of one for all."""

    rows: Callable[[RankStatus], Rows]
    over_ranks: Literal["max", "min", "sum", "first"]
    """What stands for all, unless each is asked for; first: the lowest EP rank of the host."""


@dataclass(frozen=True)
class Told:
    """What is told of a server, which does not change while it serves."""

    model_name: str
    """As clients call it."""
    by_rank: bool
    by_layer: bool
    has_stages: bool
    """Pipeline stages, of which there are several."""
    has_drafter: bool

    def includes(self, metric: Metric) -> bool:
        """Say whether a metric is told at all."""
        return metric.only_with is None or bool(getattr(self, metric.only_with))

    def labels(self, metric: Metric) -> list[str]:
        """Name all labels of a metric, in their order."""
        stage = ["stage"] * self.has_stages
        model = ["model_index"] * (self.has_drafter and isinstance(metric, OfModel))
        rank = ["rank"] * (self.by_rank and isinstance(metric, OfRank))
        return ["model_name", *stage, *model, *rank, *metric.labels]

    def samples(self, metric: Metric, stages: Iterable[Stage]) -> Iterator[tuple[list[str], float]]:
        """Compute the samples of a metric: values of `labels`, and its own."""
        for stage in stages:
            number = [stage.number] * self.has_stages
            for values, value in self._rows(metric, stage):
                yield [self.model_name, *map(str, [*number, *values])], value

    def _rows(self, metric: Metric, stage: Stage) -> Rows:
        if isinstance(metric, OfModel):
            for model in stage.models:
                index = (model.model_index,) * self.has_drafter
                for values, value in metric.rows(model, stage.statuses[0]):
                    yield (*index, *values), value
        elif isinstance(metric, OfRank) and self.by_rank:
            for status in stage.statuses:
                for values, value in metric.rows(status):
                    yield (status.rank, *values), value
        elif isinstance(metric, OfRank):
            yield from _for_all(metric, stage.fresh)
        elif isinstance(metric, OfStage):
            yield from metric.rows(stage)


def _for_all(metric: OfRank, statuses: Sequence[RankStatus]) -> Rows:
    if metric.over_ranks == "first":
        return metric.rows(statuses[0])
    found: dict[tuple[object, ...], list[float]] = {}
    for status in statuses:
        for values, value in metric.rows(status):
            found.setdefault(values, []).append(value)
    over = OVER_RANKS[metric.over_ranks]
    return [(values, over(several)) for values, several in found.items()]
