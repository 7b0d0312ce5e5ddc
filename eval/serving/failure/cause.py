# SPDX-License-Identifier: Apache-2.0
"""Why a server died, from what its processes wrote into its log. Pure functions.

When one process of a server fails, the others fail after it, and the last traceback of the log is
that of the front end, which only says that another process failed.
"""

import re
from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import NamedTuple

from eval.serving.failure.crashes import Crash, find_crashes
from eval.serving.failure.deaths import Death, find_deaths, silent_workers
from eval.serving.failure.log_lines import Line, by_process, read_lines
from eval.serving.failure.tracebacks import Raised, Traceback, find_tracebacks, short_frame

_CONTEXT_LINES = 6
_CONTEXT_WIDTH = 160
_MESSAGE_LENGTH = 600

# Exceptions that say no more than that another process, or a person, ended this one.
_TYPES = (
    r"EngineDeadError|(?:Base)?ExceptionGroup|BrokenPipeError|CancelledError|KeyboardInterrupt|SystemExit|EOFError"
    r"|zmq\.error"
)
_CONSEQUENT_TYPE = re.compile(rf"(?:^|\.)(?:{_TYPES})(?:$|\.)")
_CONSEQUENCE = re.compile(
    r"See (?:the )?(?:stack trace|root cause)|stack trace above|root cause above"
    r"|EngineCore encountered an issue|died unexpectedly|died with exit code"
    r"|Connection (?:closed by peer|reset by peer|refused)|Broken pipe\b"
    r"|Socket closed|remote process exited|ncclRemoteError|: cancelled$"
    r"|RPC call to \S+ timed out"
    r"|^Dumping (?:input|scheduler)",
    re.IGNORECASE,
)
# Except where it was a host outside that could not be reached, such as the Hub.
_OF_AN_HTTP_CLIENT = re.compile(r"^(?:aiohttp|httpcore|httpx|huggingface_hub|requests|urllib3)\.")
# What a process says of an exception that it goes on after, such as one of a plugin.
_SURVIVED = re.compile(r"^(?:Failed to load|Exception ignored)")
# Of these the message says all; the line that raised it is only where the rule is kept.
_SAYS_ALL = re.compile(r"^vllm_eplb_plugin\.|(?:^|\.)ValidationError$")
_OF_THE_PLUGIN = re.compile(r"^vllm_eplb_plugin\.")
_PYDANTIC = re.compile(r" \[type=.*|^For further information visit .*")
# What torch adds to a message.
_STACK_OF_C = re.compile(r"^(?:Exception raised from |C\+\+ CapturedTraceback|frame #\d)")
_USAGE_ERROR = re.compile(r"^[\w.-]+(?: [\w-]+)*: error: (?P<message>.+)$")
_TEARDOWN = re.compile(r"shut(?:ting)? ?down|exit|terminat|destroy|stopp|clean|clos", re.IGNORECASE)


class Cause(NamedTuple):
    """What failed first."""

    text: str
    """In one line: what, where in the code if that helps, and which process."""
    line: int
    """Of the log, from 1."""
    context: Sequence[str]
    """The innermost frames of its traceback; empty where ``text`` says all."""
    certain: bool
    """False: its process wrote on, so that it need not be what ended the server."""


class _Grade(IntEnum):
    """How likely it is what ended the server; the first is the likeliest."""

    FAILED = 0
    SILENT = 1
    """It ended, as others tell, but nobody says when."""
    WENT_ON = 2
    """Its process wrote on as if nothing was."""
    COMPLAINED = 3


class _Candidate(NamedTuple):
    grade: _Grade
    line: int
    text: str
    context: Sequence[str] = ()

    @property
    def cause(self) -> Cause:
        return Cause(self.text, self.line, self.context, self.grade <= _Grade.SILENT)


def find_cause(log: str) -> Cause | None:
    """What failed first, in any process; None: nothing looks like it.

    Args:
        log: What was written since the server was started.
    """
    lines = read_lines(log)
    processes = by_process(lines)
    found = [candidate for one in processes for candidate in _candidates(one)]
    silent = silent_workers(processes)
    deaths = list(find_deaths(lines, silent))
    found += [_Candidate(_Grade.FAILED, death.line, death.text) for death in deaths]
    found += [_of_crash(crash, silent) for one in processes for crash in find_crashes(one)]
    if silent and _anything_followed(processes):
        found.append(_Candidate(_Grade.SILENT, silent.line, silent.text))
    return min(found, key=lambda one: (one.grade, one.line)).cause if found else None


def _anything_followed(processes: Sequence[Sequence[Line]]) -> bool:
    tracebacks = (one for lines in processes for one in find_tracebacks(lines))
    return any(map(_is_consequence, tracebacks))


def _of_crash(crash: Crash, silent: Death | None) -> _Candidate:
    # faulthandler writes without the prefix of its process.
    who = crash.writer or (silent.who if silent else "")
    return _Candidate(_Grade.FAILED, crash.line, crash.text + _by(who), crash.context)


def _candidates(lines: Sequence[Line]) -> Iterator[_Candidate]:
    """Of one process."""
    last = _last_of_work(lines)
    for traceback in find_tracebacks(lines):
        candidate = _of_traceback(traceback, wrote_on=last >= traceback.end)
        if candidate is not None:
            yield candidate
    usage = False
    for index, line in enumerate(lines):
        usage = usage or line.text.startswith("usage: ")
        wrong = _USAGE_ERROR.match(line.text) if usage else None
        if wrong:
            yield _Candidate(_Grade.FAILED, line.number, wrong["message"])
        if line.level in ("ERROR", "CRITICAL") and _complains(lines, index):
            text = f"{line.text.strip()}{_by(line.writer)}"
            yield _Candidate(_Grade.COMPLAINED, line.number, text)


def _complains(lines: Sequence[Line], index: int) -> bool:
    """Whether an error that was logged is one by itself, not a traceback or about another one."""
    line, *following = lines[index : index + 2]
    before = lines[index - 1] if index else line._replace(source="")
    if (before.level, before.source) == (line.level, line.source):
        return False
    starts_traceback = any("Traceback (most" in one.text for one in (line, *following))
    return not (
        starts_traceback
        or not line.text.strip()
        or _CONSEQUENCE.search(line.text)
        or re.search(_TYPES, line.text)
    )


def _of_traceback(traceback: Traceback, wrote_on: bool) -> _Candidate | None:
    if _is_consequence(traceback):
        return None
    own = [one for one in traceback.chain if _OF_THE_PLUGIN.match(one.type)]
    first, *later = own[-1:] or traceback.chain
    says_all = _SAYS_ALL.search(first.type) is not None
    text = _describe(first)
    if first.at and not says_all:
        text += f", raised at {first.at}"
    if later and not says_all:
        text += f"; then {_describe(later[-1])}"
    survived = (
        traceback.lines[0].level in ("DEBUG", "INFO", "WARNING")
        or _SURVIVED.match(traceback.heading) is not None
        or wrote_on
    )
    return _Candidate(
        _Grade.WENT_ON if survived else _Grade.FAILED,
        traceback.lines[-1].number,
        text + _by(traceback.process),
        () if says_all else _context(traceback.lines),
    )


def _is_consequence(traceback: Traceback) -> bool:
    if any(_OF_AN_HTTP_CLIENT.match(one.type) for one in traceback.chain):
        return False
    first = traceback.chain[0]
    return bool(
        _CONSEQUENT_TYPE.search(first.type)
        or _CONSEQUENCE.search(f"{first.type}: {' '.join(first.message)}")
    )


def _last_of_work(lines: Sequence[Line]) -> int:
    """The index of the last line of a process that was not about to end; -1: there is none."""
    for index in range(len(lines) - 1, -1, -1):
        line = lines[index]
        if line.level in ("DEBUG", "INFO", "WARNING") and not _TEARDOWN.search(line.text):
            return index
    return -1


def _describe(raised: Raised) -> str:
    message = []
    for line in raised.message:
        if _STACK_OF_C.match(line):
            break
        message.append(_PYDANTIC.sub("", line.strip()).strip())
    separator = ": " if raised.type.endswith("ValidationError") else " "
    text = separator.join(part for part in message if part)
    if len(text) > _MESSAGE_LENGTH:
        text = f"{text[:_MESSAGE_LENGTH]}..."
    name = raised.type.rpartition(".")[2]
    return f"{name}: {text}" if text else name


def _context(lines: Sequence[Line]) -> list[str]:
    frames = [line.text for line in lines if line.text.startswith("  ") and line.text.strip(" ^~")]
    shown = [short_frame(text)[:_CONTEXT_WIDTH] for text in frames[-_CONTEXT_LINES:]]
    return shown if shown[:1] == [] or shown[0].startswith("  File ") else shown[1:]


def _by(process: str) -> str:
    return f" ({process})" if process else ""
