# SPDX-License-Identifier: Apache-2.0
"""Runs as one HTML page that needs nothing else (templates/report.html.j2)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from eval.config.schema import BASELINE
from eval.report import wording
from eval.report.charts import (
    balancedness_chart,
    balancedness_scale,
    lowest_balancedness,
    rank_load_chart,
    seconds_chart,
    sorted_load_chart,
)
from eval.report.layers import Layer, layer_views
from eval.report.traffic_chart import traffic_chart, traffic_of, traffic_scale
from eval.report.view import ArmAccuracy, Moved, ReportView
from eval.visible import visible
from vllm_eplb_plugin.simulation.drawing import Chart, Scale, Tick

_TEMPLATES = Path(__file__).parent / "templates"
_PAGES_OF_THE_PACKAGE = Path(__file__).parents[2] / "vllm_eplb_plugin" / "simulation"
"""Where the stylesheet and the chart are that its page and this one share, read as files."""

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

    of: ArmAccuracy
    colour: str
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
class ModelDrawings:
    """One model's experts in one arm."""

    moved: Moved
    balancedness: Chart | None = None
    """None: no rearrangement finished; there is no chart then."""
    traffic: Chart | None = None
    """None: events do not tell what ranks received."""
    seconds: Chart | None = None
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
class ArmDrawings:
    """One arm's section."""

    run: str
    name: str
    colour: str
    models: Sequence[ModelDrawings]


def render_page(report: ReportView) -> str:
    """The whole page."""
    arms = arm_drawings(report)
    return template("report.html.j2").render(
        report=report,
        accuracies=list(accuracy_charts(report)),
        arms=arms,
        before_drawings=choose_drawings(arms),
        colours=_colours(report),
        parts=wording.parts,
    )


def template(name: str) -> Template:
    """One of ours, in which every value shows as the text that it is."""
    environment = Environment(
        loader=FileSystemLoader([_TEMPLATES, _PAGES_OF_THE_PACKAGE]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        finalize=_shown,
    )
    environment.filters |= {"percent": wording.percent, "p_value": wording.p_value}
    return environment.get_template(name)


def _shown(value: object) -> object:
    """What a template puts into the page; drawings are markup already."""
    return value if isinstance(value, Markup) or not isinstance(value, str) else visible(value)


def accuracy_charts(report: ReportView) -> Iterator[AccuracyChart]:
    """One for each scored task."""
    for task in dict.fromkeys(one.task for one in report.accuracies):
        found = [one for one in report.accuracies if one.task == task]
        low = min(one.share.interval.low for one in found)
        high = max(one.share.interval.high for one in found)
        margin = 0.08 * (high - low)
        scale = Scale(100 * max(0, low - margin), 100 * min(1, high + margin))
        yield AccuracyChart(task, list(_accuracy_rows(report, found, scale)), scale.ticks(4, " %"))


def _accuracy_rows(
    report: ReportView, found: Sequence[ArmAccuracy], scale: Scale
) -> Iterator[AccuracyRow]:
    colours = _colours(report)
    off = {one.run: one.share.value for one in found if one.arm == BASELINE}
    for one in found:
        value = one.share.value
        shares = (value, *one.share.interval, off.get(one.run, value))
        yield AccuracyRow(one, colours[one.arm], *(scale.percent(100 * x) for x in shares))


def arm_drawings(report: ReportView) -> list[ArmDrawings]:
    """Every arm whose experts moved; charts of the same have one scale."""
    colours = _colours(report)
    timelines = [model.timeline for arm in report.moved for model in arm.models]
    moved = [one.rearrangements for one in timelines if one.rearrangements]
    scale = balancedness_scale(min(map(lowest_balancedness, moved), default=0.0))
    bytes_scale = traffic_scale(
        max((one.received for done in moved for one in traffic_of(done)), default=0)
    )
    return [
        ArmDrawings(
            arm.run,
            arm.arm,
            colours[arm.arm],
            [_model(one, scale, bytes_scale) for one in arm.models],
        )
        for arm in report.moved
    ]


def _model(moved: Moved, scale: Scale, bytes_scale: Scale) -> ModelDrawings:
    done, others = moved.timeline.rearrangements, moved.timeline.others
    if not done:
        return ModelDrawings(moved)
    ended = [one.time for one in others]
    drawings = ModelDrawings(
        moved,
        balancedness_chart(done, scale, ended),
        traffic_chart(done, bytes_scale, ended),
        seconds_chart([one.seconds for one in done]),
    )
    placements = moved.timeline.placements
    if placements is not None:
        drawings.ranks = placements.ranks
        drawings.experts = placements.expert_load.shape[1]
        drawings.sorted_load = sorted_load_chart(placements.expert_load)
        unmoved, served = placements.rank_load_unmoved, placements.rank_load_served
        drawings.rank_load = rank_load_chart(unmoved, served)
        drawings.layers = layer_views(placements)
    return drawings


def choose_drawings(arms: Sequence[ArmDrawings]) -> dict[Markup, str]:
    """Give every model the same share of the page, and it to the least balanced layers.

    Returns:
        Drawings of first placements, which layers mostly share, and their names in the page.
    """
    models = [model for arm in arms for model in arm.models]
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


def _colours(report: ReportView) -> dict[str, str]:
    """A CSS class for each arm's name, the same in all runs."""
    names = [arm for run in report.runs for arm in run.arms]
    different = [name for name in dict.fromkeys(names) if name != BASELINE]
    colours = {name: f"c{1 + index % _ARM_COLOURS}" for index, name in enumerate(different)}
    return {BASELINE: "c0"} | colours
