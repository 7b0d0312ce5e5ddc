# SPDX-License-Identifier: Apache-2.0
"""Python's tracebacks in the lines of one process. Pure functions."""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from eval.serving.failure.log_lines import Line

_HEADER = "Traceback (most recent call last):"
_CHAINED = (
    "The above exception was the direct cause of the following exception:",
    "During handling of the above exception, another exception occurred:",
)
_FRAME = re.compile(r'^\s+File "(?P<file>[^"]+)", line (?P<line>\d+)(?:,? in (?P<function>.+))?')
_EXCEPTION = re.compile(r"^(?P<type>[A-Za-z_][\w.]*)(?:: (?P<message>.*)|:)?$")
# Where torch calls an operation or a module; the caller says which.
_CALLS_OF_TORCH = ("torch/_ops.py", "torch/nn/modules/module.py")
# multiprocessing's, before the traceback that ends a process.
_PROCESS = re.compile(r"^Process (?P<name>\S+):$")


class Raised(NamedTuple):
    """One exception and where it was raised."""

    type: str
    """With its module, as Python prints it."""
    message: Sequence[str]
    """Its lines."""
    at: str
    """The innermost frame that tells something, ``FILE:LINE in FUNCTION``; empty: there is none."""


class Traceback(NamedTuple):
    """An exception with those that were raised while it was handled."""

    chain: Sequence[Raised]
    """The first one first."""
    heading: str
    """The line before it."""
    process: str
    """Who printed it; empty where nobody says."""
    lines: Sequence[Line]
    """Of the first exception."""
    end: int
    """The number of the line after the last one, in the lines of the process."""


def find_tracebacks(lines: Sequence[Line]) -> Iterator[Traceback]:
    """All that came to their end; that of a process that was killed meanwhile did not.

    Args:
        lines: Of one process.
    """
    index = 0
    while index < len(lines):
        if lines[index].text != _HEADER:
            index += 1
            continue
        found = _read_chain(lines, index)
        index = max(found.end, index + 1)
        if found.chain:
            yield found


def short_path(file: str) -> str:
    """As it is imported; else its last folder and its name."""
    for folder in ("site-packages/", "dist-packages/"):
        if folder in file:
            return file.rpartition(folder)[2]
    return "/".join(file.split("/")[-2:])


def short_frame(text: str) -> str:
    """A traceback's line with `short_path` for the path in it."""
    frame = _FRAME.match(text)
    return text.replace(frame["file"], short_path(frame["file"])) if frame else text


def is_telling(file: str) -> bool:
    """Whether a frame of this file, as `short_path` gives it, says what was done."""
    return file not in _CALLS_OF_TORCH


def _read_chain(lines: Sequence[Line], start: int) -> Traceback:
    chain: list[Raised] = []
    heading = lines[start - 1].text if start else ""
    before = _PROCESS.match(heading)
    process = lines[start].writer or (before["name"] if before else "")
    index, of_first = start, start
    while index < len(lines) and lines[index].text == _HEADER:
        raised, index = _read_one(lines, index + 1)
        if raised is None:
            break
        of_first = of_first if chain else index
        chain.append(raised)
        following = _skip_blank(lines, index)
        if following == len(lines) or lines[following].text not in _CHAINED:
            break
        index = _skip_blank(lines, following + 1)
    return Traceback(chain, heading, process, lines[start:of_first], index)


def _read_one(lines: Sequence[Line], index: int) -> tuple[Raised | None, int]:
    """The exception whose frames start at ``index``, and the index after it."""
    at = ""
    while index < len(lines) and lines[index].text.startswith(" "):
        frame = _FRAME.match(lines[index].text)
        if frame and (is_telling(short_path(frame["file"])) or not at):
            function = f" in {frame['function']}" if frame["function"] else ""
            at = f"{short_path(frame['file'])}:{frame['line']}{function}"
        index += 1
    exception = _EXCEPTION.match(lines[index].text) if index < len(lines) else None
    if exception is None:
        return None, index
    first, index = lines[index], index + 1
    message = [exception["message"] or ""]
    while index < len(lines) and _goes_on(lines, index, first):
        message.append(lines[index].text)
        index += 1
    return Raised(exception["type"], message, at), index


def _goes_on(lines: Sequence[Line], index: int, first: Line) -> bool:
    """Whether a line belongs to the message that starts in ``first``."""
    line = lines[index]
    if (line.level, line.source) != (first.level, first.source):
        return False
    # Blank lines are part of a message only where the logger's prefix shows that.
    following = _skip_blank(lines, index)
    if following == len(lines) or (following > index and not line.source):
        return False
    text = lines[following].text
    return text != _HEADER and text not in _CHAINED and not _PROCESS.match(text)


def _skip_blank(lines: Sequence[Line], index: int) -> int:
    while index < len(lines) and not lines[index].text.strip():
        index += 1
    return index
