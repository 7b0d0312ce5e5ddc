# SPDX-License-Identifier: Apache-2.0
"""Crashes of Python or C++ that a process could still tell of, from a server's log."""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from eval.serving.failure.log_lines import Line
from eval.serving.failure.tracebacks import is_telling, short_frame

_PYTHON = "Fatal Python error: "
_CPP = "terminate called after "
# faulthandler's, of the thread that crashed; those of others can come before it.
_CRASHED_THREAD = re.compile(r"^Current thread 0x")
_FRAME = re.compile(r'^  File "(?P<file>.+)", line (?P<line>\d+) in (?P<function>.+)$')
_MOST_LINES = 400
_CONTEXT_LINES = 6


class Crash(NamedTuple):
    """One, as its last words tell it."""

    text: str
    writer: str
    """The process, where its words have a prefix."""
    line: int
    context: Sequence[str]
    """The innermost frames, innermost first."""


def find_crashes(lines: Sequence[Line]) -> Iterator[Crash]:
    """Of one process, or of all that write without a prefix."""
    for index, line in enumerate(lines):
        following = [one.text for one in lines[index + 1 : index + _MOST_LINES]]
        if line.text.startswith(_PYTHON):
            frames = _frames(following)
            yield Crash(line.text.strip() + _where(frames), line.writer, line.number, frames)
        elif line.text.startswith(_CPP):
            what = (one.strip() for one in following if one.strip().startswith("what(): "))
            text = line.text.strip() + "".join(
                f": {one.removeprefix('what(): ').strip()}" for one in [next(what, "")] if one
            )
            yield Crash(text, line.writer, line.number, ())


def _frames(following: Sequence[str]) -> list[str]:
    starts = [n for n, text in enumerate(following) if _CRASHED_THREAD.match(text)]
    frames = []
    for text in following[starts[0] + 1 :] if starts else following:
        if not text.startswith("  File "):
            break
        frames.append(short_frame(text))
    return frames[:_CONTEXT_LINES]


def _where(frames: Sequence[str]) -> str:
    found = [frame for text in frames if (frame := _FRAME.match(text))]
    telling = [frame for frame in found if is_telling(frame["file"])] or found
    return ", at {file}:{line} in {function}".format(**telling[0].groupdict()) if telling else ""
