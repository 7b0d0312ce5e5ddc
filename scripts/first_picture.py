# SPDX-License-Identifier: Apache-2.0
"""README's first picture: what moving experts does to a sync server, by docs/benchmarks.

python scripts/first_picture.py docs/benchmarks/switching-h200.json docs/benchmarks/moving.svg
"""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib import rcParams
from matplotlib.figure import Figure

from scripts.figures import switching

_NAMES = {
    "off": "without EPLB",
    "stock-sync": "vLLM's EPLB",
    "sync": "the plugin",
    "sync-incremental": "and incremental plans",
}
_COLOURS = {"off": "#8a8a8a", "stock-sync": "#b0413e"}
_OURS = "#2f6f9f"


@dataclass(frozen=True)
class Panel:
    """One measure of all arms that have it."""

    title: str
    label: str
    """Of a value, by `str.format`."""
    value: Callable[[dict[str, Any]], float | None]


_PANELS = (
    Panel(
        "the model stands still\nfor each rearrangement",
        "{:,.0f} ms",
        lambda arm: arm["latency"]["rearrangement_ms"],
    ),
    Panel(
        "99 of 100 waits between\ntokens are shorter than",
        "{:,.0f} ms",
        lambda arm: arm["latency"]["between_tokens"]["p99"],
    ),
    Panel(
        "all completions take, times\nas long as without EPLB",
        "{:.2f}",
        lambda arm: arm["times_off"],
    ),
)


def arms_of(file: Path) -> dict[str, dict[str, Any]]:
    """Read the arms of the run with sync EPLB on two GPUs, each with its time of a token by off's.

    A token's, because an arm may have been ended before all of its completions were.
    """
    arms = switching.arms(json.loads(file.read_text()), switching.SYNC)
    return {
        name: {**arm, "times_off": switching.times_as_long(arms, name)}
        for name, arm in arms.items()
    }


def draw(arms: dict[str, dict[str, Any]], picture: Path) -> None:
    """Draw a bar an arm, in a panel a measure; the same file gives the same bytes."""
    rcParams["svg.hashsalt"] = picture.name
    figure = Figure(figsize=(9, 2.2), layout="constrained", facecolor="white")
    names = list(_NAMES)
    panels = figure.subplots(1, len(_PANELS), sharey=True)
    for panel, axes in zip(_PANELS, panels, strict=True):
        values = [panel.value(arms[name]) for name in names]
        widths = [value or 0.0 for value in values]
        colours = [_COLOURS.get(name, _OURS) for name in names]
        axes.barh(range(len(names)), widths, color=colours, height=0.6)
        for place, value in enumerate(values):
            text = "-" if value is None else panel.label.format(value)
            axes.annotate(
                text, (value or 0.0, place), (4, 0), textcoords="offset points", va="center"
            )
        axes.set_title(panel.title, loc="left", fontsize=10)
        axes.set_xlim(0, max(widths) * 1.3)
        axes.set_xticks([])
        axes.set_yticks(range(len(names)), [_NAMES[name] for name in names])
        axes.tick_params(left=False)
        axes.spines[["top", "right", "bottom"]].set_visible(False)
    panels[0].invert_yaxis()
    figure.savefig(picture, metadata={"Date": None})


if __name__ == "__main__":
    draw(arms_of(Path(sys.argv[1])), Path(sys.argv[2]))
