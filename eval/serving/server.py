# SPDX-License-Identifier: Apache-2.0
"""A ``vllm serve`` process: started, healthy, measured, stopped."""

import os
import re
import signal
import socket
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex

import httpx
from rich.console import Console
from typing_extensions import Self

from eval.errors import ServerError
from eval.serving.command import HOST, with_name, without_secrets
from eval.serving.endpoints import Endpoints
from eval.serving.failure.cause import Cause, find_cause
from eval.serving.failure.refusals import STOPPED_ANSWERING, happened_with, status_in_words
from eval.serving.memory import gpu_memory_mib
from eval.serving.process import ChildProcess, last_lines
from eval.serving.ranks import core_seconds

_POLL_SECONDS = 0.5
# From the failure of one process of a server to the end of the first, which waits for the others.
_TIME_TO_END_SECONDS = 10
# Of a log, its end: what failed first stands not far from there, and 8 MB take two seconds.
_MOST_BYTES_READ = 2**23
# vLLM chooses the ports of its ranks a minute or two before it listens on them, so that servers
# which start together take them from each other now and then.
_RESTARTS = 2
_PORT_WAS_TAKEN = re.compile(rb"EADDRINUSE|address already in use", re.IGNORECASE)
_GENERATED_TOKENS = "vllm:generation_tokens_total"

_ENVIRONMENT = {
    # vLLM closes a connection that was idle for 5 s. A question sent over it at that moment fails,
    # and as each has one attempt, the server would count as dead.
    "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "3600",
    # A process that a signal of its own code ends then says where.
    "PYTHONFAULTHANDLER": "1",
}


class Server(ChildProcess):
    """A context: the server's process runs inside it. Healthy after `wait_until_healthy`."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], log: Path, port: int
    ) -> None:
        self.model_name = f"eval-{token_hex(8)}"
        """That only this server gives its model, so that no other one answers a question."""
        command, secrets = without_secrets(with_name(command, self.model_name))
        environment = {**_ENVIRONMENT, **environment, **secrets}
        super().__init__(command, environment, log)
        self.headers = headers_for({**os.environ, **environment}.get("VLLM_API_KEY"))
        """Of every request to it."""
        self.url = f"http://{HOST}:{port}"
        self._label = ""
        self._endpoints = Endpoints(self.url, self.headers)

    def __enter__(self) -> Self:
        self._started = time.monotonic()
        self._log_start = self.log.stat().st_size if self.log.exists() else 0
        return super().__enter__()

    def wait_until_healthy(self, timeout: float, console: Console, label: str) -> float:
        """Wait for the first good answer of ``/health``.

        A server that ends because another program took one of its ports is started again.

        Args:
            timeout: Seconds since the process was started.
            console: Where the seconds are counted, and a restart is told.
            label: What is being started, for the person.

        Returns:
            Seconds since the process was started.

        Raises:
            ServerError: The process ended or the time is over; says what failed first.
        """
        self._label = f"{label}: "
        restarts = _RESTARTS
        with console.status(f"{label}: starting the server") as status:
            # Whatever else listens on the port would answer for a process that has ended.
            while not (self.running() and self._endpoints.healthy()):
                seconds = time.monotonic() - self._started
                if not self.running():
                    if restarts and self._port_was_taken():
                        restarts -= 1
                        console.print(f"{label}: a port of the server was taken, starting it again")
                        self.restart()
                        continue
                    raise self.failure(
                        f"{label}: the server ended while it was starting, after {seconds:.0f} s"
                    )
                if seconds > timeout:
                    raise self.failure(
                        f"{label}: the server was not healthy after serve.start_timeout, "
                        f"{timeout:g} s"
                    )
                status.update(f"{label}: starting the server, {seconds:.0f} s of {timeout:g} s")
                time.sleep(_POLL_SECONDS)
        seconds = time.monotonic() - self._started
        self.require_own_answers(label)
        return seconds

    def require_own_answers(self, label: str) -> None:
        """Refuse what another program answers on the port, as one can that listens there, too.

        Raises:
            ServerError: It is another one, or there is no answer; says what ``label`` is.
        """
        with self._told_of(f"{label}: ", "/v1/models"):
            names = self._endpoints.names()
        if self.model_name not in names:
            raise self.failure(
                f"{label}: what answers on {self.url} is not the server that was started: its "
                f"model has no name {self.model_name}, it has {', '.join(names) or 'none'}. Stop "
                "the other one, or set serve.port to null for a free port"
            )

    def generated_tokens(self) -> float:
        """Tokens generated so far, all engines together.

        Raises:
            ServerError: It does not say.
        """
        with self._told_of(self._label, "/metrics"):
            return self._endpoints.sum_of_metric(_GENERATED_TOKENS)

    @contextmanager
    def _told_of(self, label: str, path: str) -> Iterator[None]:
        url = self.url + path
        try:
            yield
        except httpx.HTTPStatusError as error:
            status = error.response.status_code
            happened = happened_with(status)
            raise self.failure(
                f"{label}{happened}: {url} answered {status_in_words(status)}"
            ) from error
        except httpx.HTTPError as error:
            request = f"no answer from {url} ({type(error).__name__}: {error})"
            raise self.stopped_answering(f"{label}{STOPPED_ANSWERING}", request) from error
        except ValueError as error:
            raise self.failure(f"{label}what {url} answers cannot be read: {error}") from error

    def front_end_seconds(self) -> float | None:
        """Of a core's time, that the process which takes requests has had; None: not known."""
        return core_seconds(self.pid)

    def gpu_memory_mib(self) -> int | None:
        """That all its processes have together; None: not known."""
        return gpu_memory_mib(self.session)

    def failure(self, message: str) -> ServerError:
        """An error that says ``message`` and what failed first, as far as the log tells."""
        return self._error(f"{message}{self._end()}", None)

    def stopped_answering(self, message: str, request: str) -> ServerError:
        """The same after a request failed, which is often the first that is noticed.

        Args:
            message: What happened.
            request: What became of the request.
        """
        silent = STOPPED_ANSWERING in message
        hanging = ": it hangs, or is not done with shutting down" if silent else ""
        deadline = time.monotonic() + _TIME_TO_END_SECONDS
        while self.running() and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        still = f" (its process still runs {_TIME_TO_END_SECONDS} s later{hanging})"
        return self._error(f"{message}{self._end() or still}", request)

    def _end(self) -> str:
        """How the process ended; empty while it runs."""
        if self.running():
            return ""
        status = self.wait()
        if status >= 0:
            return f" (exit status {status})"
        return f" (ended by signal {-status}, {signal.strsignal(-status)})"

    def _error(self, message: str, request: str | None) -> ServerError:
        cause = self._cause()
        if cause is None:
            told = f"{message}: {request}" if request else message
            return ServerError(f"{told}\n{self._end_of_log()}")
        told = f"{message}: {cause.text}"
        if request:
            told += f". The request: {request}"
        if not cause.certain:
            return ServerError(f"{told}\n{self._end_of_log()}")
        where = f"Its log: {self.log}, line {cause.line}"
        return ServerError("\n".join([told, where + ":" * bool(cause.context), *cause.context]))

    def _cause(self) -> Cause | None:
        """What the log tells since the process was started; its line counts from the first."""
        written = self.log.read_bytes()
        start = self._log_start
        if len(written) - start > _MOST_BYTES_READ:
            start = written.find(b"\n", len(written) - _MOST_BYTES_READ) + 1
        cause = find_cause(written[start:].decode(errors="replace"))
        if cause is None or (self.running() and not cause.certain):
            return None
        return cause._replace(line=cause.line + written[:start].count(b"\n"))

    def _end_of_log(self) -> str:
        lines = last_lines(self.log, start=self._log_start) or "(empty)"
        return f"The end of its log {self.log}:\n{lines}"

    def _port_was_taken(self) -> bool:
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return _PORT_WAS_TAKEN.search(log.read()) is not None


def headers_for(api_key: str | None) -> dict[str, str]:
    """What a server that wants a key is shown."""
    return {"Authorization": f"Bearer {api_key}"} if api_key else {}


def choose_port(configured: int | None, taken: Collection[int] = ()) -> int:
    """A port of 127.0.0.1 on which nobody listens, and none of ``taken``.

    Raises:
        ServerError: The configured port is taken.
    """
    with socket.socket() as probe:
        # As the server itself does: ports of connections that just ended are free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, configured or 0))
        except OSError as error:
            raise ServerError(
                f"serve.port {configured} of {HOST} cannot be used: {error.strerror}. "
                "Stop what listens there, or set serve.port to null for a free one"
            ) from error
        port: int = probe.getsockname()[1]
    return choose_port(configured, taken) if port in taken else port
