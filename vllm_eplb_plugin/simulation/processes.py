# SPDX-License-Identifier: Apache-2.0
"""Combinations played side by side, one process for each core."""

import multiprocessing
import os
import signal
from collections.abc import Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

from vllm_eplb_plugin.recording.recording import Recording
from vllm_eplb_plugin.simulation.combination import Combination
from vllm_eplb_plugin.simulation.errors import SimulationError
from vllm_eplb_plugin.simulation.playing import Played, play


@dataclass(frozen=True)
class Job:
    """A job is one combination over one recording."""

    recording: int
    """Its number."""
    combination: Combination


_recordings: Sequence[Recording] = ()
"""In a process that plays: forked, it shares them with the one that read them."""


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def play_all(
    recordings: Sequence[Recording], jobs: Sequence[Job], processes: int | None = None
) -> Generator[tuple[int, Played], None, None]:
    """Play jobs in any order; nothing goes on once the iterator is closed or interrupted.

    Args:
        recordings: What they are played over.
        jobs: What is played.
        processes: At most; None: one for each core.

    Yields:
        The number of a job, and what came of it.

    Raises:
        SimulationError: A policy failed, or a process ended by itself.
    """
    workers = min(processes or cores(), max(len(jobs), 1))
    before = set(multiprocessing.active_children())
    executor = ProcessPoolExecutor(
        workers, multiprocessing.get_context("fork"), _begin, (recordings,)
    )
    try:
        numbers = {executor.submit(_play, job): number for number, job in enumerate(jobs)}
        for future in as_completed(numbers):
            yield numbers[future], future.result()
    except BrokenProcessPool as error:
        raise SimulationError(
            "a process that simulates was ended, most likely for want of memory: "
            "ask for fewer recordings at once"
        ) from error
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
        for process in set(multiprocessing.active_children()) - before:
            process.terminate()


def _begin(recordings: Sequence[Recording]) -> None:
    global _recordings
    _recordings = recordings
    # Ctrl-C reaches all processes of a terminal: the first one ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _play(job: Job) -> Played:
    return play(_recordings[job.recording], job.combination)
