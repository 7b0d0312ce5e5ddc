# SPDX-License-Identifier: Apache-2.0
"""Completions asked for one after another, in turns, of a server of this machine."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from eval.cli import app
from eval.load.completions import CompletionError
from eval.load.domains import prompts_in_turns
from eval.load.streams import Stream
from eval.load.turns import stream_in_turns
from tests.builders.completions import Completions, completions_server

TOKENS = 12


@pytest.fixture
def server() -> Iterator[Completions]:
    with completions_server() as served:
        yield served


def ask(server: Completions, completions: int = 10, streams: int = 3, **more: Any) -> list[Stream]:
    prompts = prompts_in_turns(1024, turn=2)
    return stream_in_turns(server.url, "model", prompts, completions, streams, TOKENS, **more)


def test_all_completions_are_asked_in_the_order_of_their_prompts(server: Completions) -> None:
    streams = ask(server)
    prompts = prompts_in_turns(1024, turn=2)
    assert [one.prompt for one in streams] == [next(prompts) for _ in range(10)]
    assert [one.generated for one in streams] == [TOKENS] * 10
    assert [one.asked for one in streams] == sorted(one.asked for one in streams)
    sent = [request["prompt"] for request in server.asked]
    assert sorted(sent) == sorted(list(one.prompt) for one in streams)
    assert {request["temperature"] for request in server.asked} == {1.0}
    assert all(request["ignore_eos"] for request in server.asked)


def test_every_rank_answers_as_many_streams_where_the_server_does_not_choose(
    server: Completions,
) -> None:
    ask(server, completions=4, streams=4, data_parallel_ranks=2)
    chosen = [headers.get("X-data-parallel-rank") for headers in server.headers]
    assert sorted(chosen, key=str) == ["0", "0", "1", "1"]
    ask(server, completions=1, streams=1)
    assert server.headers[-1].get("X-data-parallel-rank") is None


@pytest.mark.parametrize(("completions", "streams"), [(1, 4), (4, 4), (3, 1)])
def test_as_many_streams_as_there_is_something_to_ask(
    completions: int, streams: int, server: Completions
) -> None:
    assert len(ask(server, completions, streams)) == completions


def test_streams_begin_one_by_one_and_are_all_under_way_in_the_end(server: Completions) -> None:
    server.at_once = threading.Barrier(1)
    streams = ask(server, completions=3, streams=3)
    first = streams[0]
    for number, one in enumerate(streams):
        before = [time for time in first.arrived if time <= one.asked]
        assert len(before) >= number * TOKENS // 3


def test_none_is_begun_after_the_time_that_is_given(server: Completions) -> None:
    assert ask(server, most_seconds=60.0)
    assert ask(server, completions=10**6, most_seconds=1.0)
    assert len(server.asked) < 10**5


def test_a_completion_that_is_short_ends_the_load(server: Completions) -> None:
    server.good, server.then = 4, "ends early"
    with pytest.raises(CompletionError, match=f"has {TOKENS - 1} of {TOKENS} tokens"):
        ask(server)


def test_those_that_are_not_streamed_come_whole(server: Completions) -> None:
    streams = ask(server, completions=7, streamed=3)
    assert [bool(one.arrived) for one in streams] == [True, False, False] * 2 + [True]
    assert [one.generated for one in streams] == [TOKENS] * 7
    assert {one.prompt_tokens for one in streams if not one.arrived} == {7}
    assert sum(request.get("stream", False) for request in server.asked) == 3
    assert all(request["ignore_eos"] for request in server.asked)


@pytest.mark.parametrize(
    ("then", "rule"),
    [
        ("refuses", "a request failed with 500"),
        ("ends early", f"has {TOKENS - 1} of {TOKENS} tokens"),
        ("says nothing", "without how many tokens it has"),
        ("{no json", "a request failed"),
    ],
)
def test_one_that_does_not_come_whole_ends_the_load(
    then: str, rule: str, server: Completions
) -> None:
    server.good, server.then = 1, then
    with pytest.raises(CompletionError, match=rule):
        ask(server, completions=4, streams=1, streamed=4)


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        (["--completions", "9"], "--completions belongs to --load switching"),
        (["--turn", "9"], "--turn belongs to --load switching"),
        (["--most-seconds", "9"], "--most-seconds belongs to --load switching"),
        (["--checks", "only"], "--checks belongs to --load switching"),
        (["--load", "switching", "--checks", "only", "--arm", "off"], "none of these arms"),
        (["--load", "switching", "--most-seconds", "inf"], "--most-seconds inf"),
        (["--ranks", "4", "--experts", "8", "--redundant", "2"], "which 4 ranks cannot share"),
    ],
)
def test_what_a_steady_load_has_no_use_for_is_refused_before_anything_starts(
    options: list[str], rule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eval.commands.latency.measure", lambda *_: pytest.fail("started"))
    folder = ["--folder", str(tmp_path / "latency")]
    done = CliRunner().invoke(app, ["latency", "--gpus", "0", *options, *folder])
    assert rule in str(done.exception)
    assert not list(tmp_path.iterdir())
