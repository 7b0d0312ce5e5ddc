# SPDX-License-Identifier: Apache-2.0
"""A process that has imported what every vLLM release imports, of which `Ranks` are forks.

That takes longer than importing one release.
"""

import functools
import importlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

_IMPORTED = (
    *("aiohttp", "fastapi", "mistral_common.protocol.instruct.request", "numba"),
    *("openai.types.responses", "opentelemetry.sdk.trace", "pandas", "prometheus_client", "pytest"),
    *("requests", "scipy.signal", "scipy.stats", "sklearn.metrics", "torch._dynamo"),
    *("torch._inductor.compile_fx", "transformers", "xgrammar", "zmq"),
)
"""Of this nothing imports vLLM."""

_MOST = 4096
"""Bytes of a path."""


def start_ranks(source: Path | None, jobs: int, log: int) -> None:
    """Start `two_ranks.answer_jobs` in a process that ends when there can be no more jobs.

    Args:
        source: Folder with the package ``vllm``; None: the one that is installed.
        jobs: A socket, which it reads and answers.
        log: The file for everything else that it prints.
    """
    socket.send_fds(_forking(), [f"{source or ''}\n".encode()], [jobs, log])


@functools.cache
def _forking() -> socket.socket:
    """The process, which ends when this one does."""
    ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
    with theirs:
        command = [sys.executable, "-m", "tests.releases.dependencies", str(theirs.fileno())]
        root = Path(__file__).parents[2]
        subprocess.Popen(command, cwd=root, pass_fds=[theirs.fileno()], start_new_session=True)
    return ours


def main(descriptor: int) -> None:
    """Import, then fork for each request; a fork answers jobs."""
    for name in _IMPORTED:
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(fileno=descriptor) as asked:
        while True:
            request, files, *_ = socket.recv_fds(asked, _MOST, 2)
            if not request:
                return
            if not os.fork():
                break
            for file in files:
                os.close(file)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    jobs, log = files
    for number, file in enumerate((jobs, jobs, log)):
        os.dup2(file, number)
    os.close(jobs)
    os.close(log)
    from tests.releases.two_ranks import answer_jobs

    answer_jobs(request.decode().rstrip("\n"))


if __name__ == "__main__":
    main(int(sys.argv[1]))
