# SPDX-License-Identifier: Apache-2.0
"""Processes, one a rank, of which none is waited for without an end and none stays behind."""

import logging
import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from vllm_eplb_plugin.bench.result import BenchError
from vllm_eplb_plugin.placement.fast_way import describe

Say = Callable[[str], None]
"""Tells what a rank does next."""
Job = Callable[[Any, int, Say], Any]
"""What a rank does with a task, its number and `Say`; its answer can be pickled."""

_GRACE = 3.0
"""Seconds in which a rank whose peer died may have failed before that death is seen."""


@dataclass
class _Rank:
    number: int
    process: Any
    connection: Connection
    doing: str = "start"
    heard: float = 0.0
    failure: str | None = None
    cause: int = 0
    """How likely others fail because of it: 2, it died; 1, it found something wrong."""
    answered: bool = False
    answer: Any = None

    def read(self) -> None:
        """Take one message, or that there will be none."""
        self.heard = time.monotonic()
        try:
            kind, what = self.connection.recv()
        except (EOFError, OSError):
            self.process.join(_GRACE)
            self.failure = f"ended with exit code {self.process.exitcode}"
            self.cause = 2
            return
        if kind == "doing":
            self.doing = what
        elif kind == "failed":
            self.failure, self.cause = what
        else:
            self.answered, self.answer = True, what


def run_ranks(job: Job, task: Any, ranks: int, limit: float) -> list[Any]:
    """Do a job in new processes, and return every rank's answer.

    Args:
        job: A function of a module; it is imported anew in each process.
        task: What it is told.
        ranks: How many processes.
        limit: Seconds for which a rank may say nothing.

    Raises:
        BenchError: A rank failed, died or was silent for too long; names it and what it did.
    """
    context = multiprocessing.get_context("spawn")
    started: list[_Rank] = []
    try:
        for number in range(ranks):
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=_run, args=(job, task, number, theirs), daemon=True)
            process.start()
            theirs.close()
            started.append(_Rank(number, process, ours, heard=time.monotonic()))
        _listen(started, limit)
        for rank in started:
            rank.process.join(_GRACE)
        return [rank.answer for rank in started]
    finally:
        for rank in started:
            rank.process.kill()
        for rank in started:
            rank.process.join()
            rank.connection.close()
            _forget_memory_of(rank.process.pid)


def _forget_memory_of(process: int) -> None:
    """Remove what torch counts readers of shared GPU memory in, of a process that was killed."""
    for left in Path("/dev/shm").glob(f"torch_{process}_*"):
        left.unlink(missing_ok=True)


def _listen(ranks: list[_Rank], limit: float) -> None:
    while waiting := [rank for rank in ranks if not rank.answered]:
        silent = min(waiting, key=lambda rank: rank.heard)
        left = silent.heard + limit - time.monotonic()
        ready = wait([rank.connection for rank in waiting], max(left, 0))
        if not ready and left <= 0:
            raise BenchError(
                f"rank {silent.number} has said nothing for {limit:g} s in: {silent.doing}"
                f"{_others(ranks, silent)}; --limit gives it longer"
            )
        for rank in waiting:
            if rank.connection in ready:
                rank.read()
        if any(rank.failure is not None for rank in waiting):
            raise _first_failure(waiting, ranks)


def _first_failure(waiting: list[_Rank], ranks: list[_Rank]) -> BenchError:
    """A rank that ends makes others fail, which may be heard of first: wait a little for all."""
    end = time.monotonic() + _GRACE
    while unheard := [rank for rank in waiting if rank.failure is None and not rank.answered]:
        ready = wait([rank.connection for rank in unheard], max(end - time.monotonic(), 0))
        if not ready:
            break
        for rank in unheard:
            if rank.connection in ready:
                rank.read()
    failed = [rank for rank in waiting if rank.failure is not None]
    first = max(failed, key=lambda rank: rank.cause)
    return BenchError(
        f"rank {first.number} {first.failure} in: {first.doing}{_others(ranks, first)}"
    )


def _others(ranks: list[_Rank], one: _Rank) -> str:
    others = (f"rank {rank.number} in: {rank.doing}" for rank in ranks if rank is not one)
    return "".join(f"; {other}" for other in others)


def _run(job: Job, task: Any, number: int, connection: Connection) -> None:
    """A rank's process."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logging.disable(logging.WARNING)  # what vLLM has to say of this machine
    # gloo and vLLM print there, where the table goes.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    try:
        connection.send(("done", job(task, number, lambda text: connection.send(("doing", text)))))
    except BrokenPipeError:
        return  # nobody listens any more
    except Exception as error:  # whatever torch, vLLM or NIXL raise is the answer
        found = isinstance(error, BenchError)
        why = str(error) if found else describe(error)
        connection.send(("failed", (f"failed ({why})", int(found))))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)  # whatever this rank waits for
