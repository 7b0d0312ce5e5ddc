# SPDX-License-Identifier: Apache-2.0
"""What `vllm-eplb ctl` and `vllm-eplb status` say of a server, and their exit codes."""

import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tests.builders.http_server import Request, answering
from tests.builders.rank_statuses import NOW, model_status, rank_status
from vllm_eplb_plugin.cli import metrics_condition, ordering
from vllm_eplb_plugin.cli.main import main
from vllm_eplb_plugin.observe.commands import Command, CommandStatus
from vllm_eplb_plugin.observe.metrics.definitions import METRICS as METRICS_TOLD
from vllm_eplb_plugin.observe.status import RankStatus, Stall, ThreadStatus, UnderWay, write_status

NUMBER = Command(1_795_632_425_600, "plan").number


class FakeServer:
    """It answers what it is told, path by path, and keeps what it was asked."""

    def __init__(self) -> None:
        self.url = ""
        self.answers: dict[str, list[tuple[int, str]]] = {}
        """The last one again and again."""
        self.asked: list[tuple[str, str | None]] = []
        """Path and key."""

    def __call__(self, request: Request) -> bytes:
        self.asked.append((request.path, request.headers.get("Authorization")))
        answers = self.answers.get(request.path, [(404, '{"detail": "Not Found"}')])
        status, text = answers.pop(0) if len(answers) > 1 else answers[0]
        return f"HTTP/1.1 {status} so\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode()

    def takes(self, action: str, *said: list[RankStatus]) -> None:
        """It takes a command, and then its ranks say this, look by look."""
        told = {"number": NUMBER, "action": action, "when": "within 68 engine steps"}
        self.answers[f"/eplb/{action}"] = [(202, json.dumps(told))]
        self.says(*said)

    def says(self, *said: list[RankStatus]) -> None:
        told = [{"time": NOW, "control": True, "ranks": list(map(asdict, one))} for one in said]
        self.answers["/eplb/status"] = [(200, json.dumps(one)) for one in told]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    for name in ("http_proxy", "HTTP_PROXY", "VLLM_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(ordering, "_BETWEEN_LOOKS_SECONDS", 0.001)
    fake = FakeServer()
    with answering(fake) as recorder:
        fake.url = recorder.url
        yield fake


def run(*options: str) -> Result:
    return CliRunner().invoke(main, list(options))


def two(**values: Any) -> list[RankStatus]:
    return [rank_status(rank, **values) for rank in range(2)]


def carried(number: int = NUMBER, action: Any = "plan", **values: Any) -> dict[str, Any]:
    return {"commands": [CommandStatus(number, action, 68, **values)]}


def test_it_waits_until_every_rank_is_through_and_says_what_came_of_it(server: FakeServer) -> None:
    told = "some/moe: skipped: the plan alone was asked for: 12 experts (3 MB) would move"
    ended = two(**carried(rearrangement=7, outcomes=[told]))
    half = [ended[0], rank_status(1, **carried(ended=False))]
    server.takes("plan", two(), half, ended)
    done = run("ctl", server.url, "plan")
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[1:] == ["carried out in step 68 by 2 ranks", told]
    assert [path for path, _ in server.asked] == ["/eplb/plan", *["/eplb/status"] * 3]


def test_it_need_not_wait(server: FakeServer) -> None:
    server.takes("pause")
    done = run("ctl", server.url, "pause", "--wait", "0")
    assert (done.exit_code, done.output) == (0, "pause: within 68 engine steps\n")
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("outcomes", "exit_code"),
    [
        (["some/moe: finished"], 0),
        (["some/moe: failed: no transfer today"], 1),
        (["some/moe: rejected: a rank has no plan"], 1),
        (["not begun: pause came before"], 1),
    ],
)
def test_an_outcome_that_is_not_well_is_an_exit_code(
    outcomes: list[str], exit_code: int, server: FakeServer
) -> None:
    server.takes("rearrange", two(**carried(action="rearrange", outcomes=outcomes)))
    done = run("ctl", server.url, "rearrange")
    assert done.exit_code == exit_code and outcomes[0] in done.output


def test_a_newer_command_is_named_that_came_instead(server: FakeServer) -> None:
    server.takes("plan", two(**carried(NUMBER + 8, "pause")))
    done = run("ctl", server.url, "plan")
    assert done.exit_code == 1 and "not carried out: pause came after it" in done.output


def test_where_eplb_is_off_nothing_is_waited_for(server: FakeServer) -> None:
    server.takes("rearrange", two(state="off", why="the worker of EP rank 1 has ended"))
    done = run("ctl", server.url, "rearrange")
    assert done.exit_code == 1 and "off until the server starts again: the worker" in done.output


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (two(), "no steps without requests, or one stands still"),
        (two(**carried(ended=False, rearrangement=3)), "its rearrangement is under way"),
        (two(**carried(ended=False)), "its rearrangement is to begin once none is under way"),
        ([], "its ranks do not say how they are"),
    ],
)
def test_what_takes_too_long_is_told_and_not_called_done(
    said: list[RankStatus], reason: str, server: FakeServer
) -> None:
    server.takes("plan", said)
    done = run("ctl", server.url, "plan", "--wait", "0.01")
    assert done.exit_code == 2 and reason in done.output


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (
            404,
            '{"detail": "Not Found"}',
            "start it with --enable-eplb and --additional-config '{\"",
        ),
        (403, '{"error": {"message": "EPLB takes no commands here"}}', "EPLB takes no commands"),
        (504, '{"detail": "Not every engine has answered"}', "(HTTP 504): Not every engine has"),
        (401, '{"detail": "Unauthorized: send"}', "Unauthorized: send"),
        (500, "<html>", "<html>"),
    ],
)
def test_a_server_that_does_not_do_it_is_quoted(
    status: int, body: str, reason: str, server: FakeServer
) -> None:
    server.answers["/eplb/pause"] = [(status, body)]
    done = run("ctl", server.url, "pause")
    assert done.exit_code == 2 and reason in done.output


def test_the_key_is_sent(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.takes("pause", two())
    run("ctl", server.url, "pause", "--wait", "0", "--api-key", "one")
    monkeypatch.setenv("VLLM_API_KEY", "two")
    run("ctl", server.url, "pause", "--wait", "0")
    assert [key for _, key in server.asked] == ["Bearer one", "Bearer two"]


def test_what_is_no_action_is_refused() -> None:
    done = CliRunner().invoke(main, ["ctl", "http://localhost:1", "stop"], env={"COLUMNS": "200"})
    assert done.exit_code == 2 and "none of pause, resume, rearrange, plan" in done.output


def test_status_says_in_about_ten_lines_how_a_well_server_is(server: FakeServer) -> None:
    server.says(two(**carried(NUMBER, "pause")))
    done = run("status", server.url)
    assert done.exit_code == 0
    assert done.output.splitlines() == [
        "EPLB: on; async mode; 2 of its 2 EP ranks on node-a",
        "policy: vllm; weights: peer",
        "under way: nothing, the next is due in 7 steps (step 300)",
        "threads of EP rank 0: model's thread forward, for 0 s, worker transfer of layer 3, for "
        "2 s",
        "some/moe: rearrangements: 3 finished, 1 rejected, the last in 1.25 s; 40 experts (0.0041 "
        "MB) moved",
        "some/moe: balancedness: 0.750, worst layer 0.500; planned for 0.970",
        "some/moe: EP ranks whose death every expert would survive: 1",
        "since the start: 0 stalls, 1 events dropped, EPLB held the model's thread for 5 s",
        "last command: pause, in step 68",
    ]


def stall(**values: Any) -> Stall:
    usual = {"rank": 1, "thread": "worker", "phase": "transfer", "layer": 5, "seconds": 31.0}
    return Stall(**{**usual, **values})


@pytest.mark.parametrize(
    ("ranks", "told"),
    [
        (two(state="off", why="a worker has ended"), "EPLB is off on EP ranks 0, 1: a worker has"),
        (two(stalled=[stall()]), "EP rank 1 stands still: worker, transfer of layer 5, for 31 s"),
        (
            [rank_status(), rank_status(1, time=NOW - 40)],
            "EP rank 1 (process 101 on node-a) has said nothing for 40 s; then its model's thread "
            "was in forward, for 0 s",
        ),
    ],
)
def test_status_says_first_what_is_wrong(
    ranks: list[RankStatus], told: str, server: FakeServer
) -> None:
    server.says(ranks)
    done = run("status", server.url)
    assert done.exit_code == 1
    assert done.output.startswith(f"WRONG: {told}")
    assert done.output.count("WRONG") == 1


def test_status_says_what_is_under_way_and_that_it_is_paused(server: FakeServer) -> None:
    way = UnderWay(7, 12.3, 20)
    server.says(two(state="paused", under_way=way, worker=ThreadStatus("transfer", 5, 2.0)))
    done = run("status", server.url)
    assert done.exit_code == 0
    assert "EPLB: paused by an operator; async mode" in done.output
    assert "under way: rearrangement 7, for 12.3 s, 20 layers left" in done.output
    assert "worker transfer of layer 5, for 2 s" in done.output


def test_stages_are_told_apart(server: FakeServer) -> None:
    server.says([rank_status(stage=stage, global_rank=stage, num_ranks=1) for stage in range(2)])
    lines = run("status", server.url).output.splitlines()
    assert {line.partition(": ")[0] for line in lines} == {"stage 0", "stage 1"}


def test_status_is_told_from_the_folder_where_no_server_answers(tmp_path: Path) -> None:
    for rank in two(time=time.time(), models=[model_status(survivable=[])]):
        write_status(tmp_path, rank)
    done = run("status", str(tmp_path))
    assert done.exit_code == 0
    assert "EP ranks whose death every expert would survive: none" in done.output


def test_where_nothing_tells_status_cannot(server: FakeServer, tmp_path: Path) -> None:
    server.answers["/metrics"] = [(200, "vllm:num_requests_running 1.0\n")]
    done = run("status", server.url)
    assert done.exit_code == 2 and "tells nothing of EPLB" in done.output
    done = run("status", str(tmp_path))
    assert done.exit_code == 2 and "no rank has said in" in done.output
    done = run("status", "http://127.0.0.1:1")
    assert done.exit_code == 2 and "does not answer" in done.output


METRICS = """\
# HELP vllm:eplb_state 1: what EPLB is.
# TYPE vllm:eplb_state gauge
vllm:eplb_state{model_name="some/moe",state="on",reason=""} 1.0
vllm:eplb_policy{model_name="some/moe",policy="incremental, then keep_in_place"} 1.0
vllm:eplb_rank_age_seconds{model_name="some/moe",rank="0"} 0.4
vllm:eplb_rank_age_seconds{model_name="some/moe",rank="1"} 0.6
vllm:eplb_rebalancing{model_name="some/moe"} 1.0
vllm:eplb_rearrangements_total{model_name="some/moe",outcome="finished",mode="async"} 4.0
vllm:eplb_rearrangements_total{model_name="some/moe",outcome="finished",mode="sync"} 1.0
vllm:eplb_balancedness_min{model_name="some/moe"} 0.91
vllm:eplb_rank_survivable{model_name="some/moe",rank="0"} 0.0
vllm:eplb_rank_survivable{model_name="some/moe",rank="1"} 1.0
"""
STALLED = (
    'vllm:eplb_stalled_seconds{model_name="some/moe",rank="1",thread="worker",phase="transfer",'
    'layer="5"} 31.0\n'
)


def test_what_is_read_of_the_metrics_stands_there() -> None:
    told = {metric.name.removeprefix("vllm:eplb_"): metric.labels for metric in METRICS_TOLD}
    for sample in metrics_condition._samples(METRICS + STALLED):
        assert set(sample.labels) == {"model_name", *told[sample.name]}
    assert {name for _, name in metrics_condition._FIGURES} <= set(told)


def test_without_control_status_is_told_by_the_metrics(server: FakeServer) -> None:
    server.answers["/metrics"] = [(200, METRICS)]
    done = run("status", server.url)
    assert done.exit_code == 0
    assert "EPLB: on" in done.output
    assert "policy: incremental, then keep_in_place\n" in done.output
    assert "rearrangements: 5 finished" in done.output
    assert "worst layer: 0.91" in done.output
    assert "EP ranks whose death every expert would survive: 1" in done.output


@pytest.mark.parametrize(
    ("page", "told"),
    [
        (METRICS + STALLED, "EP rank 1 stands still: worker, transfer of layer 5, for 31 s"),
        (METRICS.replace("} 0.6", "} 77"), "EP rank 1 has said nothing for 77 s"),
        (
            METRICS.replace('"on",reason=""', '"off",reason="a \\"worker\\" has ended"'),
            'EPLB is off: a \\"worker\\" has ended',
        ),
    ],
)
def test_what_is_wrong_by_the_metrics_is_an_exit_code(
    page: str, told: str, server: FakeServer
) -> None:
    server.answers["/metrics"] = [(200, page)]
    done = run("status", server.url)
    assert done.exit_code == 1 and done.output.startswith(f"WRONG: {told}\n")
