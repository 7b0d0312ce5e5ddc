# SPDX-License-Identifier: Apache-2.0
"""What the commands that simulate have in common: recordings read, and played with a bar."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from vllm_eplb_plugin.recording.reader import read_recordings
from vllm_eplb_plugin.recording.recording import Recording
from vllm_eplb_plugin.simulation.combination import Grid
from vllm_eplb_plugin.simulation.errors import SimulationError
from vllm_eplb_plugin.simulation.playing import Played
from vllm_eplb_plugin.simulation.processes import Job, play_all
from vllm_eplb_plugin.simulation.result import Simulated, simulated


@dataclass(frozen=True)
class Ran:
    """What was played before it ended."""

    results: list[Simulated]
    """Of recordings over which anything was."""
    left: int
    """Combinations that were not played, because it was interrupted."""


def read_all(paths: Sequence[Path], expert_bytes: int | None) -> list[Recording]:
    """Read every recording, with the bytes of an expert if they are given.

    Raises:
        RecordingError: See `read_recordings`.
        SimulationError: One is too short to be simulated.
    """
    found = [recording for path in paths for recording in read_recordings(path)]
    for recording in found:
        for warning in recording.warnings:
            typer.echo(f"warning: {warning}", err=True)
        if len(recording.windows) < 2:
            raise SimulationError(
                f"{recording.served.model}: the recording has one window; what is planned from it "
                "serves the next, so it needs two at least"
            )
    return [_with_bytes(recording, expert_bytes) for recording in found]


def _with_bytes(recording: Recording, expert_bytes: int | None) -> Recording:
    if expert_bytes is None:
        if min(recording.served.expert_bytes) < 1:
            raise SimulationError(
                f"{recording.served.model}: the recording does not know the bytes of an expert: "
                "--expert-bytes"
            )
        return recording
    each = (expert_bytes,) * recording.served.shape.layers
    return replace(recording, served=replace(recording.served, expert_bytes=each))


def play_grid(
    recordings: Sequence[Recording],
    grid: Callable[[Recording], Grid],
    link: float | None,
    threshold: float,
) -> Ran:
    """Play every combination; Ctrl-C ends it with those that are done.

    Raises:
        SimulationError: Nothing can be played, or a policy failed.
    """
    jobs: list[Job] = []
    for number, recording in enumerate(recordings):
        possible, impossible = grid(recording).combinations(recording)
        for reason in impossible:
            typer.echo(f"left out: {reason}", err=True)
        jobs += [Job(number, combination) for combination in possible]
    if not jobs:
        raise SimulationError("none of the combinations can be played")
    played = _play(recordings, jobs)
    results = []
    for number, recording in enumerate(recordings):
        mine = [
            played[at] for at, job in enumerate(jobs) if job.recording == number and at in played
        ]
        if mine:
            results.append(simulated(recording, mine, link, threshold))
    return Ran(results, len(jobs) - len(played))


def _play(recordings: Sequence[Recording], jobs: Sequence[Job]) -> dict[int, Played]:
    played: dict[int, Played] = {}
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    going = play_all(recordings, jobs)
    console = Console(stderr=True)
    try:
        with Progress(*columns, console=console, disable=not sys.stderr.isatty()) as progress:
            task = progress.add_task("", total=len(jobs))
            for number, one in going:
                played[number] = one
                progress.advance(task)
    except KeyboardInterrupt:
        typer.echo(f"interrupted: {len(played)} of {len(jobs)} combinations are done", err=True)
    finally:
        going.close()
    return played
