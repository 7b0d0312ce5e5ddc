# SPDX-License-Identifier: Apache-2.0
"""The one client of latency and stress: what it sends, and what it makes of all that may come."""

import threading
from collections.abc import Iterator

import pytest

from eval.load.churn import Load, keep_asking
from eval.load.completions import CompletionError
from eval.load.streams import stream_together
from tests.builders.completions import MALFORMED, Completions, completions_server


@pytest.fixture
def server() -> Iterator[Completions]:
    with completions_server() as served:
        yield served


def load(url: str, **headers: str) -> Load:
    return keep_asking(url, "model", 3, 0.2, 60, lambda _: None, headers)


def test_every_stream_tells_when_its_tokens_came(server: Completions) -> None:
    streams = stream_together(server.url, "model", streams=3, tokens=10)
    assert [len(one.arrived) for one in streams] == [9] * 3
    assert [one.generated for one in streams] == [10] * 3
    for one in streams:
        assert [one.asked, *one.arrived, one.ended] == sorted([one.asked, *one.arrived, one.ended])


def test_a_completion_that_ends_early_tells_its_tokens(server: Completions) -> None:
    server.then = "ends early"
    (stream,) = stream_together(server.url, "model", streams=1, tokens=10)
    assert stream.generated == 9
    assert "a completion has" in str(load(server.url).problem)


BROKEN = {
    "refuses": "a request failed with 500",
    "redirects": "a request failed with 302",
    "is cut": "a stream was cut after",
    "breaks off": "RemoteProtocolError",
    "answers whole": "was answered with no stream",
    "says nothing": "a stream was cut after 0 pieces",
    **dict.fromkeys(MALFORMED.values(), "the server streamed no completion"),
}


@pytest.mark.parametrize("then", BROKEN, ids=[*list(BROKEN)[:6], *MALFORMED])
def test_what_is_no_stream_of_a_completion_is_told_in_words(then: str, server: Completions) -> None:
    server.then = then
    with pytest.raises(CompletionError, match=BROKEN[then]):
        stream_together(server.url, "model", streams=2, tokens=10)
    found = load(server.url)
    assert BROKEN[then] in str(found.problem)
    assert found.requests == 0


def test_nobody_who_listens_is_told_in_words(server: Completions) -> None:
    nobody = "http://127.0.0.1:9"
    with pytest.raises(CompletionError, match="ConnectError"):
        stream_together(nobody, "model", streams=1, tokens=10)
    assert "ConnectError" in str(load(nobody).problem)


def test_what_a_server_says_at_length_is_cut(server: Completions) -> None:
    server.then = MALFORMED["much"]
    problem = str(load(server.url).problem)
    assert "xxx..." in problem
    assert len(problem) < 500


def test_no_proxy_of_the_environment_gets_the_prompts(
    server: Completions, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert stream_together(server.url, "model", streams=1, tokens=10)
    assert load(server.url).problem is None


def test_headers_go_with_every_request(server: Completions) -> None:
    stream_together(server.url, "model", 2, 10, {"Authorization": "Bearer key"})
    load(server.url, Authorization="Bearer key")
    assert {headers["Authorization"] for headers in server.headers} == {"Bearer key"}


def test_a_key_that_no_header_can_have_is_not_told(server: Completions) -> None:
    with pytest.raises(CompletionError) as refused:
        stream_together(server.url, "model", 1, 10, {"Authorization": "Bearer se\ncret"})
    assert "cret" not in str(refused.value)


def test_more_streams_than_a_client_s_usual_connections_are_asked_at_once(
    server: Completions,
) -> None:
    server.at_once = threading.Barrier(130)
    streams = stream_together(server.url, "model", streams=130, tokens=3)
    assert [one.generated for one in streams] == [3] * 130
