# SPDX-License-Identifier: Apache-2.0
"""Many rearrangements on every release: `python -m tests.releases.many_rearrangements`.

Two ranks of the release's own `EplbState`, sync and async, with target and drafter; after every
step the weights in every slot, the maps of every expert and their addresses are compared with what
they have to be, and so is what both ranks committed.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.releases.conftest import fetch
from tests.releases.ranks import Ranks, assert_nothing_wrong
from vllm_eplb_plugin.releases import RELEASES, Release

_OF_A_JOB = 25
"""Ranks have a minute for each."""


class Counted(NamedTuple):
    """What was looked at on one release, in one mode."""

    release: str
    mode: str
    rearrangements: int
    """Committed placements of all layers of a model, on both ranks alike; none was wrong."""


def count(release: Release, rearrangements: int, folder: Path) -> Iterator[Counted]:
    """Rearrange so often in each mode.

    Raises:
        AssertionError: A weight, a map or an address was wrong after some step.
    """
    ranks = Ranks(folder / f"{release.version}.log", fetch(release))
    try:
        for mode in ("sync", "async"):
            done = 0
            while done < rearrangements:
                job = {"rearrangements": _OF_A_JOB, "steps": _OF_A_JOB * 100}
                reports = ranks(use_async=mode == "async", models=2, **job)
                assert_nothing_wrong(reports)
                done += len(reports[0]["placements"])
            yield Counted(release.version, mode, done)
    finally:
        ranks.stop()


def main() -> None:
    """Count on all releases that are not in the file yet, and write what was counted."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument(
        "--each", type=int, default=100, help="rearrangements of a release and mode, at least"
    )
    options.add_argument("--json", type=Path, required=True, help="read, if it is there; written")
    told = options.parse_args()
    kept = json.loads(told.json.read_text())["counted"] if told.json.exists() else []
    counted = [Counted(**one) for one in kept]
    with tempfile.TemporaryDirectory() as folder:
        for release in RELEASES:
            if release.version in {one.release for one in counted}:
                continue
            for one in count(release, told.each, Path(folder)):
                counted.append(one)
                print(f"vLLM {one.release}, {one.mode}: {one.rearrangements}", flush=True)
            _write(told.json, counted)
    print(f"{sum(one.rearrangements for one in counted)} rearrangements, none wrong")


def _write(file: Path, counted: list[Counted]) -> None:
    total = sum(one.rearrangements for one in counted)
    result = {"rearrangements": total, "wrong": 0, "counted": [one._asdict() for one in counted]}
    file.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
