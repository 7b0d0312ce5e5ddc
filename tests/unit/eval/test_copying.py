# SPDX-License-Identifier: Apache-2.0
"""Which lines of a file that a server still writes are taken."""

from pathlib import Path

import pytest

from eval.activity import copying
from eval.activity.copying import copy_events

LINES = [b'{"schema":2,"time":1.5,"rank":0}\n', b'{"schema":2,"time":2.5}\n', b'{"time": 3e0}\n']


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "rank0.jsonl"


def copied(file: Path, content: bytes, since: float | None = None) -> bytes:
    file.write_bytes(content)
    to = file.with_name("copy.jsonl")
    copy_events(file, to, since)
    return to.read_bytes()


@pytest.mark.parametrize("block", [1, 7, 2**20])
@pytest.mark.parametrize("rest", [b"", b"{", b'{"schema":2,"time":9'])
def test_a_line_in_the_making_is_left_out(
    block: int, rest: bytes, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "_BLOCK", block)
    whole = b"".join(LINES)

    assert copied(file, whole + rest) == whole
    assert copied(file, rest) == b""


@pytest.mark.parametrize(("since", "first"), [(None, 0), (1.0, 0), (1.6, 1), (3.0, 2), (4.0, 3)])
def test_what_an_earlier_server_wrote_is_left_out(
    since: float | None, first: int, file: Path
) -> None:
    assert copied(file, b"".join(LINES), since) == b"".join(LINES[first:])


def test_what_is_no_event_is_copied_for_others_to_refuse(file: Path) -> None:
    assert copied(file, b"nonsense\n" + LINES[0], 9.0) == b"nonsense\n" + LINES[0]
