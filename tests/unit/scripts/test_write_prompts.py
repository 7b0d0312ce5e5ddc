# SPDX-License-Identifier: Apache-2.0
"""Prompts in a file are those that a server is asked in turns."""

from itertools import islice
from pathlib import Path

import pytest

from eval.load.traffic import read_texts
from scripts.ask_in_turns import prompts_of
from scripts.write_prompts import main


def test_what_is_written_is_read_as_prompts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["problems", "--number", "3"]) == 0
    file = tmp_path / "problems.jsonl"
    file.write_text(capsys.readouterr().out)
    assert read_texts(file) == list(islice(prompts_of("problems"), 3))
