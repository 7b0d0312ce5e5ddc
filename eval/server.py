# SPDX-License-Identifier: Apache-2.0
"""A ``vllm serve`` process: started, healthy, measured, stopped."""

import re
import socket
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import httpx
from rich.console import Console
from typing_extensions import Self

from eval.command import HOST
from eval.errors import ServerError
from eval.process import ChildProcess, last_lines
from eval.process_memory import gpu_memory_mib

_POLL_SECONDS = 0.5
# vLLM chooses the ports of its ranks a minute or two before it listens on them, so that servers
# which start together take them from each other now and then.
_RESTARTS = 2
_PORT_WAS_TAKEN = re.compile(rb"EADDRINUSE|address already in use", re.IGNORECASE)
_GENERATED_TOKENS = "vllm:generation_tokens_total"

# vLLM closes a connection that was idle for 5 s. A question sent over it at that moment fails, and
# as each has one attempt, the server would count as dead.
_ENVIRONMENT = {"VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "3600"}


class Server(ChildProcess):
    """A context: the server's process runs inside it. Healthy after `wait_until_healthy`."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], log: Path, port: int
    ) -> None:
        super().__init__(command, {**_ENVIRONMENT, **environment}, log)
        self.url = f"http://{HOST}:{port}"
        # A proxy of the environment is not for 127.0.0.1.
        self._client = httpx.Client(base_url=self.url, timeout=5, trust_env=False)

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
            ServerError: The process ended or the time is over; has the end of its log.
        """
        restarts = _RESTARTS
        with console.status(f"{label}: starting the server") as status:
            # Whatever else listens on the port would answer for a process that has ended.
            while not (self.running() and self._healthy()):
                seconds = time.monotonic() - self._started
                if not self.running():
                    if restarts and self._port_was_taken():
                        restarts -= 1
                        console.print(f"{label}: a port of the server was taken, starting it again")
                        self.restart()
                        continue
                    raise self.failure(f"{label}: the server ended while it was starting")
                if seconds > timeout:
                    raise self.failure(
                        f"{label}: the server was not healthy after serve.start_timeout, "
                        f"{timeout:g} s"
                    )
                status.update(f"{label}: starting the server, {seconds:.0f} s of {timeout:g} s")
                time.sleep(_POLL_SECONDS)
        return time.monotonic() - self._started

    def generated_tokens(self) -> float:
        """Tokens generated so far, all engines together."""
        try:
            response = self._client.get("/metrics").raise_for_status()
        except httpx.HTTPError as error:
            raise self.failure(f"no answer from {self.url}/metrics: {error!r}") from error
        return sum_of_metric(response.text, _GENERATED_TOKENS)

    def gpu_memory_mib(self) -> int | None:
        """That all its processes have together; None: not known."""
        return gpu_memory_mib(self.session)

    @property
    def session(self) -> int:
        """Of all its processes."""
        return self._process.pid

    def failure(self, message: str) -> ServerError:
        """An error that says ``message`` and shows the end of the log."""
        if not self.running():
            message += f" (exit status {self.wait()})"
        lines = last_lines(self.log) or "(empty)"
        return ServerError(f"{message}\nThe end of its log {self.log}:\n{lines}")

    def _port_was_taken(self) -> bool:
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return _PORT_WAS_TAKEN.search(log.read()) is not None

    def _healthy(self) -> bool:
        try:
            return self._client.get("/health").is_success
        except httpx.TransportError:
            return False


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


def sum_of_metric(exposition: str, name: str) -> float:
    """Sum one metric of a Prometheus text over all its labels; 0 when it is not there."""
    pattern = rf"^{re.escape(name)}(?:{{[^}}]*}})?\s+(\S+)"
    return sum(float(value) for value in re.findall(pattern, exposition, re.MULTILINE))
