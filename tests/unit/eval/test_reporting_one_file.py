# SPDX-License-Identifier: Apache-2.0
"""Results of one file, as ``docs`` keeps them, on the terminal."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from eval.cli import app

DOCS = Path(__file__).parents[3] / "docs"


def _results() -> list[Path]:
    found = []
    for file in sorted(DOCS.glob("*/**/*.json")):
        written = json.loads(file.read_text())
        if isinstance(written, dict) and {"arm", "arms"} & written.keys():
            found.append(file)
    return found


@pytest.mark.parametrize("file", _results(), ids=lambda file: str(file.relative_to(DOCS)))
def test_every_kept_result_is_tabulated(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    done = CliRunner().invoke(app, ["report", str(file)])
    assert done.exit_code == 0, done.exception
    written = json.loads(file.read_text())
    arms = [arm["name"] for arm in written["arms"]] if "arms" in written else [written["arm"]]
    assert [arm for arm in arms if arm not in done.output] == []


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"schema": 5}', '{"schema_version": 99}'])
def test_a_file_that_is_no_result_is_refused_by_name(tmp_path: Path, text: str) -> None:
    file = tmp_path / "other.json"
    file.write_text(text)
    done = CliRunner().invoke(app, ["report", str(file)])
    assert f"{file} was not written by this harness" in str(done.exception)


@pytest.mark.parametrize("option", ["--html", "--markdown"])
def test_a_report_in_a_file_asks_for_the_folder(option: str, tmp_path: Path) -> None:
    file = _results()[0]
    done = CliRunner().invoke(app, ["report", str(file), option, str(tmp_path / "report")])
    assert str(done.exception).startswith(f"{file} is a file: ")
    assert not list(tmp_path.iterdir())
