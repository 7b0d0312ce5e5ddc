# SPDX-License-Identifier: Apache-2.0
"""Questions of several kinds in turns, as docs/offline.md asks them."""

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from typing import Any

import pytest

from scripts.ask_in_turns import columns_of_sums, main, passages, word_problems

_ASKED: list[dict[str, Any]] = []


class _Model(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._answer({"data": [{"id": "tiny"}]})

    def do_POST(self) -> None:
        _ASKED.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self._answer({"choices": [{"text": "7"}]})

    def _answer(self, said: object) -> None:
        body = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    _ASKED.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), _Model) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def _passages(seed: int) -> Iterator[str]:
    return passages(["".join(f"line {number}\n" for number in range(2000))], seed)


@pytest.mark.parametrize("kind", [word_problems, columns_of_sums, _passages])
def test_prompts_differ_and_are_the_same_each_time(kind: Any) -> None:
    prompts = list(islice(kind(3), 20))
    assert len(set(prompts)) == 20
    assert list(islice(kind(3), 20)) == prompts


def test_sums_are_right() -> None:
    for column in islice(columns_of_sums(0), 10):
        for left, right, inside, result in re.findall(r"(\d+)\+(\d+)=<<(.*)=(\d+)>>", column):
            assert int(left) + int(right) == int(result)
            assert inside == f"{left}+{right}"


@pytest.mark.parametrize("text", ["def f():\n    return 1\n", "one line\n", "x\n" * 900])
def test_a_passage_is_of_whole_lines_and_never_empty(text: str) -> None:
    for passage in islice(passages([text], 0), 50):
        assert passage and passage in text
        assert text.startswith(passage) or text[text.index(passage) - 1] == "\n"


def test_kinds_are_asked_in_turns_of_the_served_model(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([url, "--turns", "3", "--prompts", "4", "--at-once", "2"]) == 0
    is_problem = ["Question:" in one["prompt"] for one in _ASKED]
    assert is_problem == [True] * 4 + [False] * 4 + [True] * 4
    assert {one["model"] for one in _ASKED} == {"tiny"}
    assert capsys.readouterr().out.count("turn ") == 3


def test_a_server_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["http://127.0.0.1:9", "--prompts", "1"]) == 2
    assert "http://127.0.0.1:9" in capsys.readouterr().err
