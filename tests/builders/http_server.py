# SPDX-License-Identifier: Apache-2.0
"""A small HTTP server inside the test, which notes every request."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple


class Request(NamedTuple):
    """One, as it arrived."""

    path: str
    headers: dict[str, str]
    body: bytes


class Recorder(ThreadingHTTPServer):
    """Answers each request with the bytes that ``answer`` gives, status line and all."""

    daemon_threads = True

    def __init__(self, answer: Callable[[Request], bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer = answer
        self.requests: list[Request] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Recorder

    def do_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        request = Request(self.path, dict(self.headers), body)
        self.server.requests.append(request)
        # Who asked may have gone.
        with suppress(OSError):
            self.wfile.write(self.server.answer(request))
        self.close_connection = True

    do_GET = do_POST = do_CONNECT = do_any  # noqa: N815 - names of the standard library

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def answering(answer: bytes | Callable[[Request], bytes]) -> Iterator[Recorder]:
    """A server that runs inside."""
    given = answer if callable(answer) else lambda _: answer
    with Recorder(given) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def response(body: bytes, status: str = "200 OK", **headers: str) -> bytes:
    """As it goes over the wire; ``content_length`` may lie."""
    lines = {"content_length": str(len(body)), "connection": "close", **headers}
    head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + body
