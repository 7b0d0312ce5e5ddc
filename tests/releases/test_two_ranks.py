# SPDX-License-Identifier: Apache-2.0
"""vLLM's real `EplbState` on two gloo ranks, with and without the overrides."""

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.releases.two_ranks import REPORT_MARK, Group, Scenario

ROOT = Path(__file__).parents[2]
TIME_LIMIT = 240

Reports = list[dict[str, Any]]


class Ranks:
    """Two rank processes that take one scenario after another."""

    def __init__(self, folder: Path, **group: Any) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._logs = [folder / f"rank{rank}.log" for rank in range(2)]
        self._processes = [
            self._start(Group(rank=rank, port=port, **group), log)
            for rank, log in enumerate(self._logs)
        ]

    def _start(self, group: Group, log: Path) -> subprocess.Popen[str]:
        with log.open("w") as stderr:
            return subprocess.Popen(
                [sys.executable, "-m", "tests.releases.two_ranks", group.to_json()],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )

    def __call__(self, **scenario: Any) -> Reports:
        """Run a scenario on both ranks and return what each of them saw."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(Scenario(**scenario).to_json() + "\n")
            process.stdin.flush()
        watchdog = threading.Timer(TIME_LIMIT, self.stop)
        watchdog.start()
        reports = [self._read_report(rank) for rank in range(2)]
        watchdog.cancel()
        return reports

    def _read_report(self, rank: int) -> dict[str, Any]:
        stdout = self._processes[rank].stdout
        assert stdout is not None
        for line in stdout:
            if line.startswith(REPORT_MARK):
                report: dict[str, Any] = json.loads(line.removeprefix(REPORT_MARK))
                return report
        pytest.fail(f"rank {rank} ended: {self._logs[rank].read_text()[-4000:]}")

    def stop(self) -> None:
        """End both processes."""
        for process in self._processes:
            process.kill()
            process.wait()


def _ranks(tmp_path_factory: pytest.TempPathFactory, **group: Any) -> Iterator[Ranks]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("GLOO_SOCKET_IFNAME", "lo")
        environment.setenv("VLLM_HOST_IP", "127.0.0.1")
        ranks = Ranks(tmp_path_factory.mktemp("ranks"), **group)
        yield ranks
        ranks.stop()


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ranks]:
    """Ranks with the overrides."""
    yield from _ranks(tmp_path_factory)


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ranks]:
    """Ranks without."""
    yield from _ranks(tmp_path_factory, plugin=False)


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ranks]:
    """Ranks with the overrides, where maps are committed and weights are not moved."""
    yield from _ranks(tmp_path_factory, fault="weights_not_moved")


def assert_nothing_wrong(reports: Reports) -> None:
    for report in reports:
        assert report["wrong_weights"] == 0
        assert report["wrong_maps"] == 0
        assert report["moved_addresses"] == 0
    assert reports[0]["placements"] == reports[1]["placements"]


def read_events(folder: Path, rank: int) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"rank{rank}.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("redundant", [0, 4])
def test_sync_rearrangements_place_exactly_as_vllm_s_own(
    redundant: int, ours: Ranks, stock: Ranks
) -> None:
    reports = ours(redundant=redundant)
    assert_nothing_wrong(reports)
    (report, _), (expected, _) = reports, stock(redundant=redundant)
    assert len(report["placements"]) >= 6
    assert report["placements"] == expected["placements"]
    assert report["l2p"] == expected["l2p"]
    assert (report["width"], expected["width"]) == (redundant + 1, 1024)


def test_async_rearrangements_of_two_models_leave_every_slot_right(
    ours: Ranks, tmp_path: Path
) -> None:
    reports = ours(use_async=True, models=2, events_dir=str(tmp_path))
    assert_nothing_wrong(reports)
    assert len(reports[0]["placements"]) >= 6
    events = read_events(tmp_path, 0)
    committed = [e for e in events if e["event"] == "layer_committed"]
    assert {(e["model"], e["layer"]) for e in committed} == {
        (f"model{model}", layer) for model in range(2) for layer in range(3)
    }
    assert all(e["mode"] == "async" for e in committed)


def test_events_tell_what_moved_and_what_it_cost(ours: Ranks, tmp_path: Path) -> None:
    reports = ours(events_dir=str(tmp_path))
    events = read_events(tmp_path, 0)
    finished = [e for e in events if e["event"] == "rearrangement_finished"]
    placements = [report[0] for report in reports[0]["placements"]]
    initial = [[slot % 8 for slot in range(12)]] * 3
    for before, after, event in zip([initial, *placements], placements, finished, strict=False):
        changed = [
            sum(x != y for x, y in zip(b, a, strict=True))
            for b, a in zip(before, after, strict=True)
        ]
        assert event["slots_changed"] == changed
        received = sum(
            len(set(a[half]) - set(b[half]))
            for b, a in zip(before, after, strict=True)
            for half in (slice(0, 6), slice(6, 12))
        )
        # An expert is 6 float32 and 4 float16 numbers.
        assert event["bytes_sent"] == received * (6 * 4 + 4 * 2)
        assert event["balancedness_expected"] >= event["balancedness_before"]
    checks = [
        e
        for rank in range(2)
        for e in read_events(tmp_path, rank)
        if e["event"] == "weights_checked"
    ]
    assert len(checks) == 2 * 3 * len(finished)
    assert all(e["mismatched_slots"] == [] and e["slots"] == 6 for e in checks)


@pytest.mark.parametrize("use_async", [False, True])
def test_weights_that_stay_behind_are_noticed(
    use_async: bool, faulty: Ranks, tmp_path: Path
) -> None:
    reports = faulty(use_async=use_async, events_dir=str(tmp_path))
    assert all(report["wrong_weights"] > 0 for report in reports)
    for rank in range(2):
        checks = [e for e in read_events(tmp_path, rank) if e["event"] == "weights_checked"]
        assert sum(len(e["mismatched_slots"]) for e in checks) > 0


@pytest.mark.parametrize(
    ("policy", "reasons"),
    [
        ("drops_an_expert", ["no slot for logical expert 0"] * 2),
        ("differs_between_ranks", ["differs between ranks"] * 2),
        ("fails_on_one_rank", ["another rank rejected", "RuntimeError: no plan today"]),
    ],
)
@pytest.mark.parametrize("use_async", [False, True])
def test_a_bad_placement_is_refused_on_every_rank_and_stepping_goes_on(
    policy: str, reasons: list[str], use_async: bool, ours: Ranks, tmp_path: Path
) -> None:
    reports = ours(policy=policy, use_async=use_async, steps=60, events_dir=str(tmp_path))
    assert_nothing_wrong(reports)
    for rank, (report, reason) in enumerate(zip(reports, reasons, strict=True)):
        assert report["placements"] == []
        assert report["rejections"] >= 3
        rejected = [e for e in read_events(tmp_path, rank) if e["event"] == "placement_rejected"]
        assert len(rejected) >= 2
        assert all(reason in e["reason"] for e in rejected)


def test_a_policy_of_three_tensors_works_like_one_of_one(ours: Ranks) -> None:
    assert ours(policy="three_tensors")[0]["placements"] == ours()[0]["placements"]


def test_a_mapping_with_empty_slots_is_taken_over_in_place(ours: Ranks) -> None:
    reports = ours(elastic_mapping=True)
    assert_nothing_wrong(reports)
    assert reports[0]["placements"][0][0][0][8:] == [-1] * 4
