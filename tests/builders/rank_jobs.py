# SPDX-License-Identifier: Apache-2.0
"""Jobs of ranks in processes of their own, which import them from here."""

import os
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from vllm_eplb_plugin.bench.result import BenchError
from vllm_eplb_plugin.bench.transfer.processes import run_ranks

Say = Callable[[str], None]


def answer(task: Any, rank: int, say: Say) -> Any:
    say("counting")
    return [task, rank, os.getpid()]


def print_and_answer(task: Any, rank: int, say: Say) -> Any:
    print("what gloo prints")
    return rank


def fail_on_rank_1(task: Any, rank: int, say: Say) -> Any:
    say("looking")
    if rank == 1:
        raise LookupError("nothing there")
    return rank


def die_on_rank_1(task: Any, rank: int, say: Say) -> Any:
    """The other one fails because of it, and says so first."""
    say("moving")
    if rank == 1:
        task.wait()
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        raise ConnectionError("closed by peer")
    finally:
        task.set()


def find_something_on_rank_1(task: Any, rank: int, say: Say) -> Any:
    """The other one fails because of it, and says so first."""
    if rank == 1:
        task.wait()
        raise BenchError("expert 3 is not there")
    try:
        raise ConnectionError("closed by peer")
    finally:
        task.set()


def wait_for_ever_on_rank_1(task: Any, rank: int, say: Say) -> Any:
    say("waiting")
    if rank == 1:
        threading.Event().wait()
    return rank


def commit_nothing_on_rank_1(task: Any, rank: int, say: Say) -> Any:
    """The benchmark, where a rank leaves in the buffer what it received."""
    from vllm_eplb_plugin.bench.transfer.measuring import measure
    from vllm_eplb_plugin.bench.transfer.ways import Way

    if rank == 1:
        Way.commit = lambda *_: None  # type: ignore[assignment, method-assign]
    return measure(task, rank, say)


def tell_and_wait_for_ever(task: Any, rank: int, say: Say) -> Any:
    task.send(rank)
    threading.Event().wait()


def run_ranks_that_wait(connection: Connection) -> None:
    """What is killed while its ranks wait."""
    run_ranks(tell_and_wait_for_ever, connection, 2, 600.0)
