# SPDX-License-Identifier: Apache-2.0
"""Ports and metrics of a server; starting and stopping are in test_run.py."""

import re
import socket
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from eval.errors import ServerError
from eval.serving.endpoints import sum_of_metric
from eval.serving.server import Server, choose_port
from tests.builders.http_server import Request, answering, response

EXPOSITION = """\
# HELP vllm:generation_tokens_total Number of generation tokens processed.
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{engine="0",model_name="m"} 1.5e+03
vllm:generation_tokens_total{engine="1",model_name="m"} 27.0
vllm:generation_tokens_created{engine="0",model_name="m"} 1.7e+09
vllm:prompt_tokens_total{engine="0",model_name="m"} 9.0
process_open_fds 12.0
"""


def test_a_metric_is_summed_over_engines() -> None:
    assert sum_of_metric(EXPOSITION, "vllm:generation_tokens_total") == 1527


def test_a_metric_without_labels_is_read() -> None:
    assert sum_of_metric(EXPOSITION, "process_open_fds") == 12


def test_a_metric_that_is_not_there_is_zero() -> None:
    assert sum_of_metric(EXPOSITION, "vllm:generation") == 0


@pytest.mark.parametrize(
    ("environment", "seconds"), [({}, "3600"), ({"VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "7"}, "7")]
)
def test_idle_connections_stay_open_unless_the_configuration_says_otherwise(
    tmp_path: Path, environment: dict[str, str], seconds: str
) -> None:
    program = "import os; print(os.environ['VLLM_HTTP_TIMEOUT_KEEP_ALIVE'])"
    with Server([sys.executable, "-c", program], environment, tmp_path / "log", 1) as server:
        server.wait()
    assert (tmp_path / "log").read_text().split() == [seconds]


def test_a_server_that_ended_is_not_healthy_because_another_answers_on_its_port(
    tmp_path: Path,
) -> None:
    class Healthy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

    other = HTTPServer(("127.0.0.1", 0), Healthy)
    threading.Thread(target=other.serve_forever, daemon=True).start()
    ended = Server([sys.executable, "-c", ""], {}, tmp_path / "log", other.server_port)
    with ended, pytest.raises(ServerError, match="the server ended while it was starting"):
        ended.wait()
        ended.wait_until_healthy(20, Console(quiet=True), "arm off")
    other.shutdown()


def stranger(answers: dict[str, bytes]) -> Callable[[Request], bytes]:
    """Something healthy on the port of a server that is still starting."""
    healthy = {"/health": response(b"")}
    return lambda request: {**healthy, **answers}.get(request.path, response(b"", "404 Not Found"))


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ({"/v1/models": response(b'{"data": [{"id": "other"}]}')}, "it has other. Stop"),
        ({"/v1/models": response(b'{"data": []}')}, "it has none. Stop"),
        ({"/v1/models": response(b"hello")}, "/v1/models answers cannot be read"),
        ({}, "another one may answer on its port"),
        ({"/v1/models": response(b"", "401 Unauthorized")}, "the server wants an API key"),
    ],
)
def test_what_answers_for_a_server_that_is_starting_is_refused(
    tmp_path: Path, answers: dict[str, bytes], said: str
) -> None:
    with answering(stranger(answers)) as other:
        sleeping = [sys.executable, "-c", "import time; time.sleep(600)"]
        server = Server(sleeping, {}, tmp_path / "log", other.server_port)
        with server, pytest.raises(ServerError) as raised:
            server.wait_until_healthy(20, Console(quiet=True), "arm off")

    assert str(raised.value).startswith("arm off: ")
    assert said in str(raised.value)


def test_a_server_is_started_with_a_name_that_no_other_has(tmp_path: Path) -> None:
    program = tmp_path / "vllm"
    program.write_text('#!/bin/sh\necho "$@"\n')
    program.chmod(0o755)
    names = []
    for number in range(2):
        log = tmp_path / f"log{number}"
        with Server([str(program), "serve", "some/model", "--seed", "1"], {}, log, 1) as server:
            server.wait()
            names.append(server.model_name)
            told = f"serve some/model --seed 1 --served-model-name some/model {names[-1]}"
            assert server.log.read_text().strip() == told
    assert len(set(names)) == 2


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        (b"<html>{", "/metrics answers cannot be read"),
        (b"\xff\xfe", "/metrics answers cannot be read"),
        (b"vllm:generation_tokens_total NaN\n", "/metrics answers cannot be read"),
        (b'a{engine="0 1\n', "/metrics answers cannot be read"),
        (b"a 1\n" * 2**23, "no end after"),
    ],
)
def test_metrics_that_cannot_be_read_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metrics: bytes, said: str
) -> None:
    monkeypatch.setattr("eval.serving.server._TIME_TO_END_SECONDS", 0)
    with answering(stranger({"/metrics": response(metrics)})) as other:
        sleeping = [sys.executable, "-c", "import time; time.sleep(600)"]
        server = Server(sleeping, {}, tmp_path / "log", other.server_port)
        with server, pytest.raises(ServerError) as raised:
            server.generated_tokens()

    assert said in str(raised.value)
    assert len(str(raised.value)) < 1000


def test_ports_of_servers_that_start_together_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    offered = iter([7, 7, 7, 8])

    class Socket(socket.socket):
        def bind(self, address: Any) -> None:
            pass

        def getsockname(self) -> tuple[str, int]:
            return "127.0.0.1", next(offered)

    monkeypatch.setattr(socket, "socket", Socket)
    assert choose_port(None) == 7
    assert choose_port(None, [7]) == 8


def test_a_free_port_can_be_listened_on() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", choose_port(None)))


def test_a_taken_port_is_refused() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        with pytest.raises(ServerError, match=f"serve.port {port} .*set serve.port to null"):
            choose_port(port)
    assert choose_port(port) == port


RAISES = "class Broken(Exception): pass\nraise Broken('out of {0}')"


def failing(program: str, log: Path) -> Server:
    return Server([sys.executable, "-c", program], {}, log, choose_port(None))


def test_a_server_that_ends_while_it_starts_says_why_and_where(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with failing(RAISES.format("luck"), log) as server, pytest.raises(ServerError) as raised:
        server.wait_until_healthy(20, Console(quiet=True), "arm off")

    first, second, *_ = str(raised.value).split("\n")
    assert re.fullmatch(
        r"arm off: the server ended while it was starting, after \d+ s \(exit status 1\): "
        r"Broken: out of luck, raised at <string>:2 in <module>",
        first,
    )
    assert re.match(rf"Its log: {log}, line \d:$", second)


def test_only_what_was_written_since_the_last_start_is_told(tmp_path: Path) -> None:
    log = tmp_path / "log"
    attempt = f"import os; text = 'luck' if os.path.getsize({str(log)!r}) else 'EADDRINUSE'\n"
    with failing(f"{attempt}raise ValueError(text)", log) as server:
        server.wait()
        with pytest.raises(ServerError) as raised:
            server.wait_until_healthy(20, Console(quiet=True), "arm off")

    assert "ValueError: luck" in str(raised.value)
    assert "EADDRINUSE" not in str(raised.value)
    line = re.search(r"line (\d+)", str(raised.value).split("\n")[1])
    assert line and "ValueError: luck" in log.read_text().split("\n")[int(line[1]) - 1]


def test_a_failed_request_is_told_after_the_cause(tmp_path: Path) -> None:
    with failing(RAISES.format("memory"), tmp_path / "log") as server:
        text = str(server.stopped_answering("arm off: the server stopped answering", "reset"))

    assert text.startswith(
        "arm off: the server stopped answering (exit status 1): Broken: out of memory, raised at"
    )
    assert text.split("\n")[0].endswith(". The request: reset")


def test_a_signal_that_ended_the_server_is_told(tmp_path: Path) -> None:
    with failing("import os; os.kill(os.getpid(), 9)", tmp_path / "log") as server:
        assert "stopped (ended by signal 9, Killed)" in str(
            server.stopped_answering("stopped", "reset")
        )


def test_a_server_that_still_runs_after_a_failed_request_is_said_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eval.serving.server._TIME_TO_END_SECONDS", 0)
    with failing("import time; time.sleep(600)", tmp_path / "log") as server:
        text = str(server.stopped_answering("the server stopped answering", "reset"))

    assert "its process still runs 0 s later: it hangs, or is not done with shutting down" in text
    assert text.split("\n")[0].endswith(": reset")
    assert "The end of its log" in text


def test_of_a_long_log_the_end_is_read_and_its_lines_are_counted_from_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eval.serving.server._MOST_BYTES_READ", 1000)
    early = "Fatal Python error: Aborted\\n" + "line\\n" * 1000
    program = f"print('{early}', flush=True)\n{RAISES.format('luck')}"
    with failing(program, tmp_path / "log") as server:
        server.wait()
        text = str(server.failure("it ended"))

    assert text.startswith("it ended (exit status 1): Broken: out of luck")
    number = re.search(r"line (\d+):", text.split("\n")[1])
    lines = (tmp_path / "log").read_text().split("\n")
    assert number and lines[int(number[1]) - 1].endswith("Broken: out of luck")
