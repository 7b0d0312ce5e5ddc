# SPDX-License-Identifier: Apache-2.0
"""What `vllm-eplb recording` says of a recording is what is in it."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from tests.builders.recordings import SHAPE, in_force, window, write, writer_in
from vllm_eplb_plugin.cli.main import main
from vllm_eplb_plugin.placement.balance import balancedness, count_received_experts

STEPS = (10, 20, 30)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    writer = writer_in(tmp_path / "recorded")
    writer.placed(in_force(0))
    write(writer, *STEPS)
    return tmp_path / "recorded"


def tensor(numbers: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(numbers)


def test_balancedness_is_that_of_the_placement_a_window_was_served_by(folder: Path) -> None:
    answer = CliRunner().invoke(main, ["recording", str(folder), "--json"])
    [told] = json.loads(answer.output)
    placements = [tensor(in_force(step).physical_to_logical) for step in (0, *STEPS)]
    expected = [
        balancedness(tensor(window(step).load), placement, SHAPE.ranks)
        for step, placement in zip(STEPS, placements, strict=False)
    ]
    assert [one["balancedness"] for one in told["windows"]] == pytest.approx(expected)
    assert [one["tokens"] for one in told["windows"]] == pytest.approx(
        [window(step).load.sum() / 3 for step in STEPS]
    )
    assert told["experts_moved"] == sum(
        sum(count_received_experts(old, new, SHAPE.ranks)) for old, new in pairwise(placements)
    )
    assert told["outcomes"] == {"finished": 3}
    assert told["served"]["shape"]["experts"] == 8


def test_the_table_fits_80_columns_and_tells_of_warnings(folder: Path) -> None:
    writer = writer_in(folder)
    writer.lost = 2
    writer._number = 1
    write(writer, 40)
    answer = CliRunner().invoke(main, ["recording", str(folder)])
    assert answer.exit_code == 0
    assert "tiny, model 0, vLLM 0.26.0" in answer.output
    assert "4, of steps 10 to 40" in answer.output
    assert "2 windows could not be written" in answer.output
    rows = [line for line in answer.output.splitlines() if not line.startswith("note:")]
    assert max(map(len, rows)) <= 80


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_a_plot_is_drawn(folder: Path, tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("matplotlib", reason="it draws plots, and is in no group but train")
    file = tmp_path / f"plot.{suffix}"
    answer = CliRunner().invoke(main, ["recording", str(folder), "--plot", str(file)])
    assert answer.exit_code == 0, answer.output
    assert file.stat().st_size > 1000


def test_what_cannot_be_read_or_drawn_is_an_error(folder: Path, tmp_path: Path) -> None:
    answer = CliRunner().invoke(main, ["recording", str(tmp_path / "none")])
    assert answer.exit_code == 2 and "error: " in answer.output
    pytest.importorskip("matplotlib", reason="it draws plots, and is in no group but train")
    answer = CliRunner().invoke(main, ["recording", str(folder), "--plot", str(tmp_path / "a.odt")])
    assert answer.exit_code == 2 and "a.odt: " in answer.output
