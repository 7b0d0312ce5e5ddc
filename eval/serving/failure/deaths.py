# SPDX-License-Identifier: Apache-2.0
"""Processes that ended without a traceback, from a server's log. Pure functions."""

import re
import signal
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from eval.serving.failure.log_lines import Line
from eval.serving.failure.tracebacks import find_tracebacks

_WORKER = re.compile(r"[Ww]orker")
# vLLM 0.32 gives the exit code None for a process that it has not waited for yet.
_DIED = re.compile(
    r"(?:Worker proc|RayWorkerProc|Engine core (?:proc|process)|Process) "
    r"(?P<name>\S+)(?: \(PID: \d+\))? died"
    r"(?: unexpectedly)?(?:(?: with exit code | \(exit code: )(?P<code>-?\d{1,9})\b)?"
)
_FAILED_PROCESSES = re.compile(r"Failed (?:core|frontend) proc\(s\): \{(?P<processes>[^}]*)\}")
_EXIT_CODE = re.compile(r"'(?P<name>[^']+)': (?P<code>-?\d{1,9})\b")
_NOTHING_SAID = (
    "the log has no traceback of it, as when a signal ends a process, such as that of the "
    "kernel's out-of-memory killer"
)


class Death(NamedTuple):
    """A process that ended without a word."""

    who: str
    code: str | None
    """Its exit code, negative for a signal; None: nobody knows."""
    line: int

    @property
    def text(self) -> str:
        """In a sentence."""
        return f"{self.who} ended without a word{_how(self.code)}: {_NOTHING_SAID}"


def find_deaths(lines: Sequence[Line], silent: Death | None) -> Iterator[Death]:
    """Those that another process tells of.

    Args:
        lines: The whole log.
        silent: From `silent_workers`. Of a worker the others know a name that it does not write.
    """
    for line in lines:
        died = _DIED.search(line.text)
        if died:
            worker = silent if _WORKER.search(died["name"]) else None
            yield Death(worker.who if worker else died["name"], died["code"], line.number)
        failed = _FAILED_PROCESSES.search(line.text)
        for process in _EXIT_CODE.finditer(failed["processes"]) if failed else ():
            # One that ends itself, with a positive code, has written why.
            if int(process["code"]) < 0:
                yield Death(process["name"], process["code"], line.number)


def silent_workers(processes: Sequence[Sequence[Line]]) -> Death | None:
    """The worker, or workers, that wrote of no error although the server failed.

    Args:
        processes: From `eval.serving.failure.log_lines.by_process`.
    """
    last_words = [
        lines[-1]
        for lines in processes
        if _WORKER.search(lines[-1].process) and not _tells_of_an_error(lines)
    ]
    if not last_words:
        return None
    who = " or ".join(line.writer for line in last_words)
    return Death(who, None, min(line.number for line in last_words))


def _tells_of_an_error(lines: Sequence[Line]) -> bool:
    logged = any(line.level in ("ERROR", "CRITICAL") for line in lines)
    return logged or any(True for _ in find_tracebacks(lines))


def _how(code: str | None) -> str:
    if code is None:
        return ""
    number = int(code)
    try:
        return f" by {signal.Signals(-number).name}" if number < 0 else f", exit code {number}"
    except ValueError:
        return f", exit code {number}"
