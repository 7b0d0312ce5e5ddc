# SPDX-License-Identifier: Apache-2.0
"""`vllm-eplb bench telling` measures rearrangements that are told and recorded."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from typer.testing import CliRunner

from vllm_eplb_plugin.bench import telling
from vllm_eplb_plugin.cli.main import main
from vllm_eplb_plugin.recording.recording import Ended, Window
from vllm_eplb_plugin.recording.recording_sink import RecordingSink


def test_every_rearrangement_that_is_measured_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[object] = []

    class Sink(RecordingSink):
        def write(self, line: Mapping[str, Any]) -> Iterator[None]:
            taken.append(line["what"])
            yield from super().write(line)

    monkeypatch.setattr(telling, "RecordingSink", Sink)
    arguments = ["bench", "telling", "--shape", "3x8+4/1x1x4", "--rounds", "4"]
    done = CliRunner().invoke(main, arguments, env={"COLUMNS": "160"})
    assert done.exit_code == 0, done.output
    assert "recording" in done.output
    assert [one.step for one in taken if isinstance(one, Window)] == [1, 2, 3, 4]
    assert [one.outcome for one in taken if isinstance(one, Ended)] == ["finished"] * 4
