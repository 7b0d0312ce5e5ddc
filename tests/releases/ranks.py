# SPDX-License-Identifier: Apache-2.0
"""The process that runs jobs on two EP ranks of one vLLM release."""

import json
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from tests.releases.dependencies import start_ranks
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
        self._socket, theirs = socket.socketpair()
        self._lines = self._socket.makefile("rw")
        with theirs, log.open("w") as printed:
            start_ranks(source, theirs.fileno(), printed.fileno())
        self.examined: dict[str, Any] = self._read()
        """What `two_ranks.examine` found."""
        self.jobs = 0

    def __call__(self, **job: Any) -> Reports:
        """Run a job and return what each rank saw."""
        self.jobs += 1
        self._lines.write(Job(**job).to_json() + "\n")
        self._lines.flush()
        answer = self._read()
        if "error" in answer:
            raise RankFailure(f"{answer['error']}\n{self.log.read_text()[-4000:]}")
        reports: Reports = answer["ranks"]
        return reports

    def _read(self) -> dict[str, Any]:
        if not (line := self._lines.readline()):
            pytest.fail(f"the ranks' process ended:\n{self.log.read_text()[-4000:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def stop(self) -> None:
        """Let the process end: there are no more jobs."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._lines.close()
        self._socket.close()


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
