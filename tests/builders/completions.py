# SPDX-License-Identifier: Apache-2.0
"""A server that streams completions, and fails in whatever way it is told to."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MALFORMED = {
    "no JSON": "{no json",
    "an array": "[]",
    "a number": "7",
    "nothing": "{}",
    "null": "null",
    "no choices": '{"choices": null}',
    "a choice that is none": '{"choices": [7]}',
    "text that is none": '{"choices": [{"text": 7}]}',
    "usage that is none": '{"choices": [], "usage": {"completion_tokens": "many"}}',
    "an error": '{"error": {"message": "engine dead", "code": 500}}',
    "a text of JSON": '"choices"',
    "much": f'{{"error": "{"x" * 5000}"}}',
}
"""What no stream of a completion has, by what it is."""


class Completions:
    """What the server was asked, and how it goes wrong after ``good`` requests."""

    def __init__(self) -> None:
        self.good = 0
        self.then = ""
        """``refuses``, ``redirects``, ``hangs``, ``ends early``, ``is cut``, ``breaks off``,
        ``answers whole``, ``says nothing``, or data of one event."""
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.url = ""
        self.at_once = threading.Barrier(1)
        """Each request waits here for as many others before it is answered."""


@contextmanager
def completions_server() -> Iterator[Completions]:
    """Serve them inside; two tokens come together, the others one by one."""
    told = Completions()

    class Server(ThreadingHTTPServer):
        # Of the standard library's five, the rest of many requests at once would be reset.
        request_queue_size = 512
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            """Who asked went away."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            told.headers.append(dict(self.headers))
            told.asked.append(request)
            then = told.then if len(told.asked) > told.good else ""
            told.at_once.wait(60)
            if then == "refuses":
                self.send_error(500, "engine dead")
                return
            if then == "redirects":
                self.send_response(302)
                self.send_header("Location", "/v1/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(200)
            kind = "application/json" if then == "answers whole" else "text/event-stream"
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            if then == "hangs":
                time.sleep(5)
            if request.get("stream"):
                self.events(request["max_tokens"], then)
            else:
                self.whole(request["max_tokens"], then)
            if then == "breaks off":
                self.close_connection = True
                return
            self.wfile.write(b"0\r\n\r\n")

        def events(self, tokens: int, then: str) -> None:
            if then in ("says nothing", "hangs"):
                return
            tokens -= then == "ends early"
            if then in MALFORMED.values():
                self.event(then)
                return
            for _ in range(tokens - 1):
                self.event('{"choices": [{"text": "a"}]}')
            if then not in ("is cut", "breaks off"):
                usage = {"choices": [], "usage": {"completion_tokens": tokens}}
                self.event(json.dumps(usage))
                self.event("[DONE]")

        def whole(self, tokens: int, then: str) -> None:
            usage = {"completion_tokens": tokens - (then == "ends early"), "prompt_tokens": 7}
            told = {} if then == "says nothing" else {"usage": usage}
            data = then if then in MALFORMED.values() else json.dumps({"choices": [], **told})
            self.chunk(data.encode())

        def event(self, data: str) -> None:
            self.chunk(f"data: {data}\n\n".encode())

        def chunk(self, text: bytes) -> None:
            self.wfile.write(f"{len(text):x}\r\n".encode() + text + b"\r\n")

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = Server(("127.0.0.1", 0), Handler)
    told.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield told
    finally:
        server.shutdown()
        server.server_close()
