# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.releases.many_rearrangements`: what it counts, and where it goes on."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.releases import many_rearrangements
from tests.releases.many_rearrangements import Counted
from vllm_eplb_plugin.releases import RELEASES, Release


def test_it_goes_on_with_the_releases_that_were_not_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    counted: list[str] = []

    def count(release: Release, rearrangements: int, folder: Path) -> Iterator[Counted]:
        counted.append(release.version)
        yield Counted(release.version, "sync", rearrangements)

    first, *others = [release.version for release in RELEASES]
    file = tmp_path / "rearrangements.json"
    kept = Counted(first, "async", 7)
    file.write_text(json.dumps({"counted": [kept._asdict()]}))
    monkeypatch.setattr(many_rearrangements, "count", count)
    monkeypatch.setattr(sys, "argv", ["", "--each", "3", "--json", str(file)])
    many_rearrangements.main()
    assert counted == others
    written = json.loads(file.read_text())
    assert written["counted"][0] == kept._asdict()
    assert written["rearrangements"] == 7 + 3 * len(others)
    assert f"{7 + 3 * len(others)} rearrangements, none wrong" in capsys.readouterr().out
