# SPDX-License-Identifier: Apache-2.0
"""Memory over time, drawn."""

from pathlib import Path

from eval.errors import EvaluationError
from eval.stress.result import StressResult


def write_plot(result: StressResult, file: Path) -> None:
    """Draw what the server's processes had, one panel for the GPU and one for the host.

    Raises:
        EvaluationError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise EvaluationError(f"--plot needs matplotlib: {error}") from error
    panels = [("host", "host memory of the server, GiB", result.host_growth_mib)]
    if any(sample.gpu is not None for sample in result.memory):
        panels.insert(0, ("gpu", "GPU memory of the server, GiB", result.gpu_growth_mib))
    figure = Figure(figsize=(5.5 * len(panels), 3.6), layout="constrained")
    for axes, (part, title, growth) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
    ):
        points = [
            (sample.seconds / 60, value / 1024)
            for sample in result.memory
            if (value := getattr(sample, part)) is not None
        ]
        axes.plot(*zip(*points, strict=True), color="#2f6f9f", lw=1.8)
        axes.set_ylim(0, 1.15 * max(value for _, value in points))
        axes.set_xlabel("minutes under load")
        grown = "" if growth is None else f" ({growth:+.0f} MiB)"
        axes.set_title(f"{title}{grown}", loc="left", fontsize=11)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=120)
