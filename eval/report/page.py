# SPDX-License-Identifier: Apache-2.0
"""Runs as one HTML page that needs nothing else (templates/report.html.j2)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from eval.activity.moved_models import labels
from eval.activity.timeline import Timeline
from eval.config.schema import BASELINE
from eval.report import origin, wording
from eval.report.charts import (
    balancedness_chart,
    balancedness_scale,
    lowest_balancedness,
    rank_load_chart,
    seconds_chart,
    sorted_load_chart,
)
from eval.report.layers import Layer, layer_views
from eval.report.pairing import Accuracy, accuracy, all_pairs
from eval.report.runs import Run
from eval.report.svg import Chart, Scale, Tick
from eval.visible import visible

_TEMPLATES = Path(__file__).parent / "templates"

DRAWING_BYTES = 1_000_000
"""For the figures of layers; when all need more, the best balanced layers get none."""

FEW_LAYERS = 8
"""So many stand in the page one after the other."""
LAYERS_SHOWN = 4
"""Of more, the least balanced ones; the others are folded away."""

_ARM_COLOURS = 4


@dataclass(frozen=True)
class AccuracyRow:
    """A dot and its interval, placed in per cent of the track."""

    run: str
    arm: str
    colour: str
    accuracy: Accuracy
    dot: float
    low: float
    high: float
    off: float
    """Arm ``off`` of the same run."""


@dataclass(frozen=True)
class AccuracyChart:
    """All arms' accuracies in one task."""

    task: str
    rows: Sequence[AccuracyRow]
    ticks: Sequence[Tick]


@dataclass
class ModelView:
    """What happened to one model's experts in one arm."""

    model: str
    balancedness: Chart | None
    """None: no rearrangement finished; there is no chart then."""
    seconds: Chart | None
    times: Sequence[tuple[str, str]]
    others: Sequence[str] = ()
    """Rearrangements that did not finish, and why."""
    ranks: int = 0
    experts: int = 0
    sorted_load: Chart | None = None
    rank_load: Chart | None = None
    layers: Sequence[Layer] = ()
    drawn: set[int] = field(default_factory=set)
    """Layers that get a figure."""

    @property
    def scale(self) -> Scale:
        """Of the layers' balancedness."""
        lowest = min(min(x.balancedness_unmoved, x.balancedness_served) for x in self.layers)
        return balancedness_scale(lowest)

    @property
    def shown(self) -> list[Layer]:
        if len(self.layers) <= FEW_LAYERS:
            return list(self.layers)
        return sorted(self.layers, key=lambda one: one.balancedness_unmoved)[:LAYERS_SHOWN]

    @property
    def folded(self) -> list[Layer]:
        shown = {layer.index for layer in self.shown}
        return [layer for layer in self.layers if layer.index not in shown]


@dataclass(frozen=True)
class ArmView:
    """One arm's section."""

    run: str
    name: str
    colour: str
    models: Sequence[ModelView]


def render_page(runs: Sequence[Run]) -> str:
    """The whole page."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        finalize=_shown,
    )
    environment.filters |= {"percent": wording.percent, "p_value": wording.p_value}
    arms = arm_views(runs)
    return environment.get_template("report.html.j2").render(
        runs=runs,
        first=runs[0].result,
        verdict=wording.overall(runs),
        accuracies=list(accuracy_charts(runs)),
        pairs=[one for run in runs for one in all_pairs(run)],
        arms=arms,
        before_drawings=choose_drawings(arms),
        colours=_colours(runs),
        origin=origin,
        wording=wording,
    )


def _shown(value: object) -> object:
    """What a template puts into the page; drawings are markup already."""
    return value if isinstance(value, Markup) or not isinstance(value, str) else visible(value)


def accuracy_charts(runs: Sequence[Run]) -> Iterator[AccuracyChart]:
    """One for each scored task."""
    colours = _colours(runs)
    for task in runs[0].result.config.tasks:
        if not task.scored:
            continue
        found = [
            (run.label, arm.result.name, accuracy(arm.samples, task.name))
            for run in runs
            for arm in run.arms
        ]
        if not found:
            continue
        low, high = min(one.low for *_, one in found), max(one.high for *_, one in found)
        margin = 0.08 * (high - low)
        scale = Scale(100 * max(0, low - margin), 100 * min(1, high + margin))
        off = {run: one.value for run, arm, one in found if arm == BASELINE}
        rows = [
            AccuracyRow(
                run,
                arm,
                colours[arm],
                one,
                *(scale.percent(100 * x) for x in (one.value, one.low, one.high, off[run])),
            )
            for run, arm, one in found
        ]
        yield AccuracyChart(task.name, rows, scale.ticks(4, " %"))


def arm_views(runs: Sequence[Run]) -> list[ArmView]:
    """Every arm whose experts moved; their charts of balancedness have one scale."""
    colours = _colours(runs)
    timelines = [timeline for run in runs for arm in run.arms for timeline in arm.timelines]
    moved = [one.rearrangements for one in timelines if one.rearrangements]
    scale = balancedness_scale(min(map(lowest_balancedness, moved), default=0.0))
    return [
        ArmView(
            run.label,
            arm.result.name,
            colours[arm.result.name],
            [
                _model_view(label, timeline, scale)
                for label, timeline in zip(
                    labels([one.model for one in arm.timelines]), arm.timelines, strict=True
                )
            ],
        )
        for run in runs
        for arm in run.arms
        if arm.timelines
    ]


def _model_view(label: str, timeline: Timeline, scale: Scale) -> ModelView:
    done, others = timeline.rearrangements, list(wording.others(timeline))
    if not done:
        return ModelView(label, None, None, (), others)
    view = ModelView(
        label,
        balancedness_chart(done, scale, [one.time for one in timeline.others]),
        seconds_chart([one.seconds for one in done]),
        list(wording.times(timeline)),
        others,
    )
    placements = timeline.placements
    if placements is not None:
        view.ranks, view.experts = placements.ranks, placements.expert_load.shape[1]
        view.sorted_load = sorted_load_chart(placements.expert_load)
        view.rank_load = rank_load_chart(placements.rank_load_unmoved, placements.rank_load_served)
        view.layers = layer_views(placements)
    return view


def choose_drawings(views: Sequence[ArmView]) -> dict[Markup, str]:
    """Give every model the same share of the page, and it to the least balanced layers.

    Returns:
        Drawings of first placements, which layers mostly share, and their names in the page.
    """
    models = [model for view in views for model in view.models]
    names: dict[Markup, str] = {}
    for model in models:
        left = DRAWING_BYTES / len(models)
        for layer in sorted(model.layers, key=lambda one: one.balancedness_unmoved):
            before = layer.figure.before
            left -= layer.figure.size() + (0 if before in names else len(before))
            if left < 0:
                break
            model.drawn.add(layer.index)
            names.setdefault(before, f"before{len(names)}")
    return names


def _colours(runs: Sequence[Run]) -> dict[str, str]:
    """A CSS class for each arm's name, the same in all runs."""
    names = [arm.result.name for run in runs for arm in run.arms]
    different = [name for name in dict.fromkeys(names) if name != BASELINE]
    colours = {name: f"c{1 + index % _ARM_COLOURS}" for index, name in enumerate(different)}
    return {BASELINE: "c0"} | colours
