# SPDX-License-Identifier: Apache-2.0
"""The lines of a server's log, each with the process that wrote it. Pure functions."""

import re
from collections.abc import Sequence
from typing import NamedTuple

# Colours, which vLLM leaves out of a file unless it is told otherwise.
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_PROCESS = re.compile(r"^\((?P<name>\S+) pid=(?P<pid>\d+)[^)]*\) ?")
_RECORD = re.compile(
    r"^(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL) \d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)? "
    r"\[(?P<source>[^\]\s]+:\d+)\] ?"
)


# An ExceptionGroup's, which draws its exceptions as a tree.
_GROUP = re.compile(r"^ +\+ Exception Group (?=Traceback \(most recent call last\):$)")
_BRANCH = re.compile(r"^(?:  )+\| ?|^ +\+-[+-]*(?: (?:\d+|\.\.\.) -+)?$")


class Line(NamedTuple):
    """One line without its prefixes."""

    number: int
    """From 1."""
    process: str
    """As the log names it, such as ``Worker_DP0_EP0``; empty where it names none."""
    pid: str
    level: str
    """Empty where the line was printed, not logged."""
    source: str
    """File and line that logged it."""
    text: str

    @property
    def writer(self) -> str:
        """The process, in the words of the log."""
        return f"{self.process} pid={self.pid}" if self.pid else self.process


def read_lines(log: str) -> list[Line]:
    """All lines, in the formats of vLLM 0.18 to 0.33."""
    return [_line(number, text) for number, text in enumerate(log.split("\n"), start=1)]


def _line(number: int, text: str) -> Line:
    # What was before a carriage return, a progress bar, has been written over.
    text = _COLOUR.sub("", text.rstrip("\r")).rpartition("\r")[2]
    process = _PROCESS.match(text)
    text = text[process.end() :] if process else text
    record = _RECORD.match(text)
    text = text[record.end() :] if record else text
    return Line(
        number,
        process["name"] if process else "",
        process["pid"] if process else "",
        record["level"] if record else "",
        record["source"] if record else "",
        _BRANCH.sub("", _GROUP.sub("", text)),
    )


def by_process(lines: Sequence[Line]) -> list[list[Line]]:
    """The lines of each process, in the order of their first ones.

    A process is its number: vLLM changes the name once a worker knows its rank.
    """
    found: dict[str, list[Line]] = {}
    for line in lines:
        found.setdefault(line.pid, []).append(line)
    return list(found.values())
