# SPDX-License-Identifier: Apache-2.0
"""A simulation as one HTML page that needs nothing else (page.html.j2, shared.css)."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from vllm_eplb_plugin import __version__
from vllm_eplb_plugin.simulation.candidate import NOTHING
from vllm_eplb_plugin.simulation.changes import BALANCED
from vllm_eplb_plugin.simulation.charts import FrontChart, front_chart, time_chart
from vllm_eplb_plugin.simulation.drawing import Chart
from vllm_eplb_plugin.simulation.result import Simulated
from vllm_eplb_plugin.simulation.summary import labels_of

_COLOURS = 4


@dataclass(frozen=True)
class Group:
    """Combinations that differ in the policy alone, in one chart."""

    title: str
    chart: Chart


@dataclass(frozen=True)
class Section:
    """One recording."""

    simulated: Simulated
    colours: dict[str, str]
    labels: dict[str, str]
    """Of policies."""
    front: FrontChart
    groups: Sequence[Group]


def render_page(results: Sequence[Simulated]) -> str:
    """The whole page, of one recording or more."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {"share": _share, "gigabytes": _gigabytes}
    return environment.get_template("page.html.j2").render(
        sections=[_section(one) for one in results], version=__version__, balanced=BALANCED
    )


def _section(simulated: Simulated) -> Section:
    colours = _colours(list(dict.fromkeys(row.policy for row in simulated.rows)))
    front = front_chart(simulated.rows, colours)
    labels = labels_of(simulated.rows)
    return Section(simulated, colours, labels, front, _groups(simulated, colours))


def _groups(simulated: Simulated, colours: dict[str, str]) -> list[Group]:
    """What never moves is in every chart of its ranks, to be compared with."""
    rows = simulated.rows

    def cluster(at: int) -> tuple[int, int, int]:
        return rows[at].redundant, rows[at].ranks, rows[at].nodes

    def schedule(at: int) -> tuple[int, int]:
        return rows[at].interval, rows[at].window

    def key(at: int) -> tuple[int, ...]:
        return (*cluster(at), *schedule(at))

    still = [at for at in range(len(rows)) if rows[at].policy == NOTHING]
    moving = sorted((at for at in range(len(rows)) if at not in still), key=key)
    groups = []
    for _, group in groupby(moving or still, key):
        chosen = list(group)
        beside = [at for at in still if cluster(at) == cluster(chosen[0]) and at not in chosen]
        row = rows[chosen[0]]
        plural = "s" if row.nodes > 1 else ""
        title = (
            f"{row.redundant} redundant experts, {row.ranks} ranks, {row.nodes} node{plural}; "
            f"every {row.interval}, from {row.window}"
        )
        groups.append(Group(title, time_chart(simulated, [*beside, *chosen], colours)))
    return groups


def _colours(policies: Sequence[str]) -> dict[str, str]:
    """CSS classes: what never moves is grey."""
    moving = [policy for policy in policies if policy != NOTHING]
    colours = {policy: f"c{1 + at % _COLOURS}" for at, policy in enumerate(moving)}
    return {policy: colours.get(policy, "c0") for policy in policies}


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _gigabytes(number: float | None) -> str:
    return "-" if number is None else f"{number / 1e9:,.4g}"
