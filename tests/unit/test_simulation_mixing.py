# SPDX-License-Identifier: Apache-2.0
"""How far windows are from being served by one placement."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.builders.simulated import STEPS, a_recording
from vllm_eplb_plugin.recording.reader import read_recordings
from vllm_eplb_plugin.recording.recording import Ended, Recording, Shape
from vllm_eplb_plugin.simulation.mixing import Mixing, mixing_of

ROOT = Path(__file__).parents[2]
SHAPE = Shape(layers=1, experts=4, slots=4, ranks=2)
FIRST, SECOND = np.array([[0, 1, 2, 3]]), np.array([[0, 2, 1, 3]])
HOT = np.array([[20, 20, 0, 0]])


def recorded(ended_after: float, load: np.ndarray = HOT) -> Recording:
    """Two windows a minute apart, and a rearrangement between them that took so long."""
    recording = a_recording([HOT, load], SHAPE, placements=[FIRST, SECOND])
    first = recording.windows[0]
    return replace(recording, outcomes=[Ended(STEPS, first.time + ended_after, "finished")])


def test_a_rearrangement_of_a_quarter_of_the_window_leaves_that_to_the_old_placement() -> None:
    # One rank had all 40 tokens, then both 20: at most 40 / 4 + 20 * 3 / 4 = 25.
    assert mixing_of(recorded(15)) == Mixing(0.25, 1.0, pytest.approx(20 / 25))


def test_where_the_new_placement_is_the_worse_one_nothing_is_taken_off() -> None:
    other = np.array([[20, 0, 20, 0]])
    assert mixing_of(recorded(15, other)) == Mixing(0.25, 0.5, 0.5)


def test_a_rearrangement_that_outlasts_the_window_leaves_it_to_the_old_placement() -> None:
    assert mixing_of(recorded(90)) == Mixing(1.0, 1.0, 0.5)


@pytest.mark.parametrize("lacks", ["outcomes", "placements", "times"])
def test_without_times_outcomes_or_placements_nothing_is_said(lacks: str) -> None:
    recording = recorded(15)
    if lacks == "times":
        windows = [replace(window, time=0.0) for window in recording.windows]
        assert mixing_of(replace(recording, windows=windows)) is None
    else:
        assert mixing_of(replace(recording, **{lacks: ()})) is None


def test_the_recording_of_gsm_tiny_has_what_its_documents_say() -> None:
    [recording] = read_recordings(ROOT / "docs/recordings/gsm-tiny")
    mixing = mixing_of(recording)
    assert mixing is not None
    assert f"{mixing.share:.0%}, {mixing.at_least:.3f} to {mixing.at_once:.3f}" == (
        "10%, 0.967 to 0.970"
    )
