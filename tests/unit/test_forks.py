# SPDX-License-Identifier: Apache-2.0
"""Forks of a front end: what they keep of it, and when ranks are some."""

import errno
import os
import socket
from multiprocessing import resource_tracker

import pytest

from vllm_eplb_plugin.loopback.cpu.forked_ranks import may_fork
from vllm_eplb_plugin.loopback.forks import fork_instead

context = fork_instead(lambda: None)()  # type: ignore[arg-type, return-value]


def _what_is_left(listener: socket.socket, other: socket.socket, answer: int) -> None:
    try:
        listener.settimeout(1)
        listener.accept()
    except OSError as error:
        other.sendall(errno.errorcode[error.errno or 0].encode())
    os.write(answer, b"done")


def test_a_fork_lets_go_of_the_port_and_keeps_all_else() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    near, far = socket.socketpair()
    reader, writer = os.pipe()
    process = context.Process(target=_what_is_left, args=(listener, far, writer))
    process.start()
    assert near.recv(100) == b"ENOTSOCK"
    assert os.read(reader, 100) == b"done"
    process.join()
    assert process.exitcode == 0
    socket.create_connection(listener.getsockname()).close()


def _tracker() -> int | None:
    resource_tracker.ensure_running()
    pid: int | None = resource_tracker._resource_tracker._pid  # type: ignore[attr-defined]
    return pid


def test_one_process_removes_the_shared_memory_of_all_forks() -> None:
    reader, writer = os.pipe()
    process = context.Process(target=lambda: os.write(writer, str(_tracker()).encode()))
    process.start()
    assert os.read(reader, 20).decode() == str(_tracker())
    process.join()


@pytest.mark.parametrize("listens_before", [True, False])
def test_a_port_is_free_while_a_fork_lives(listens_before: bool) -> None:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    if listens_before:
        listener.listen()
    reader, writer = os.pipe()
    ready, said = os.pipe()

    def stay() -> None:
        os.write(said, b"here")
        os.read(reader, 1)

    process = context.Process(target=stay)
    process.start()
    assert os.read(ready, 10) == b"here"
    address = listener.getsockname()
    listener.listen()
    listener.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)
    os.write(writer, b"x")
    process.join()


@pytest.mark.parametrize(
    ("threads", "cores", "may"),
    [("1", "nobind", True), ("2", "nobind", False), (None, "nobind", False), ("1", "0-3", False)],
)
def test_ranks_are_forks_where_openmp_has_nothing_to_read(
    threads: str | None, cores: str, may: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", cores)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if threads is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
    assert may_fork() == may
