# SPDX-License-Identifier: Apache-2.0
"""The process that runs jobs on two EP ranks of one vLLM release."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.releases.two_ranks import Job

ROOT = Path(__file__).parents[2]

Reports = list[dict[str, Any]]


class RankFailure(RuntimeError):  # noqa: N818
    """A rank could not do its job; the message has its log."""


class Ranks:
    """One release, imported once; every call runs a job in two new processes."""

    def __init__(self, log: Path, source: Path | None = None) -> None:
        """Start it.

        Args:
            log: File for everything that it prints.
            source: Folder with the package ``vllm``; None: the one that is installed.
        """
        self.log = log
        self.started = time.monotonic()
        environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "VLLM_HOST_IP": "127.0.0.1"}
        if source is not None:
            environment["PYTHONPATH"] = str(source)
            # Compiled once, beside the sources: the second import takes a third of the time.
            environment.pop("PYTHONDONTWRITEBYTECODE", None)
        with log.open("w") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.releases.two_ranks"],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
        self.examined: dict[str, Any] = self._read()
        """What `two_ranks.examine` found."""
        self.jobs = 0

    def __call__(self, **job: Any) -> Reports:
        """Run a job and return what each rank saw."""
        assert self._process.stdin is not None
        self.jobs += 1
        self._process.stdin.write(Job(**job).to_json() + "\n")
        self._process.stdin.flush()
        answer = self._read()
        if "error" in answer:
            raise RankFailure(f"{answer['error']}\n{self.log.read_text()[-4000:]}")
        reports: Reports = answer["ranks"]
        return reports

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            pytest.fail(f"the ranks' process ended:\n{self.log.read_text()[-4000:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()


def refusal(ranks: Ranks, **job: Any) -> tuple[str, str]:
    """What the first rank failed with, and what both logged meanwhile."""
    before = len(ranks.log.read_text())
    with pytest.raises(RankFailure) as failure:
        ranks(**job)
    return str(failure.value).partition("\n")[0], ranks.log.read_text()[before:]


def assert_nothing_wrong(reports: Reports) -> None:
    """After every step, weights, maps and addresses were right, the same on both ranks."""
    for report in reports:
        assert report["wrong_weights"] == 0
        assert report["wrong_maps"] == 0
        assert report["moved_addresses"] == 0
    assert reports[0]["placements"] == reports[1]["placements"]
