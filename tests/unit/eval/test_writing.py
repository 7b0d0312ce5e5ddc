# SPDX-License-Identifier: Apache-2.0
"""What is written by name, and what is left as it was."""

import os
import socket
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from eval.errors import EvaluationError
from eval.results.writing import write_atomically, write_named


@pytest.mark.parametrize("write", [write_atomically, write_named])
def test_a_link_stays_and_its_target_is_replaced(
    tmp_path: Path, write: Callable[[Path, str], None]
) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("before")
    target.chmod(0o600)
    link.symlink_to(target)

    write(link, "now")

    assert link.is_symlink()
    assert (target.read_text(), stat.S_IMODE(target.stat().st_mode)) == ("now", 0o600)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "target"]


def test_a_link_to_nothing_makes_its_target(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    write_named(tmp_path / "link", "now")
    assert (tmp_path / "target").read_text() == "now"


@pytest.fixture
def device(tmp_path: Path) -> Callable[[int], Path]:
    """Makes one as those of Linux's memory driver: were it replaced, the machine keeps its own."""
    if os.geteuid() != 0:
        pytest.skip("only root can make a device, or replace one")

    def make(minor: int) -> Path:
        os.mknod(tmp_path / "device", 0o666 | stat.S_IFCHR, os.makedev(1, minor))
        return tmp_path / "device"

    return make


def test_a_device_is_written_to_and_stays(device: Callable[[int], Path]) -> None:
    null = device(3)
    write_named(null, "now")
    assert stat.S_ISCHR(null.stat().st_mode)


def test_a_full_device_is_told_of_and_stays(device: Callable[[int], Path]) -> None:
    full = device(7)
    with pytest.raises(EvaluationError, match="cannot write .*: No space left on device"):
        write_named(full, "now")
    assert stat.S_ISCHR(full.stat().st_mode)


def test_a_pipe_gets_the_text(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    found: list[str] = []
    reader = threading.Thread(target=lambda: found.append(pipe.read_text()))
    reader.start()
    # Opening it to write fails until the reader has opened it; holding it open here waits for that.
    holding = os.open(pipe, os.O_WRONLY)
    write_named(pipe, "now")
    os.close(holding)
    reader.join()
    assert (found, stat.S_ISFIFO(pipe.stat().st_mode)) == (["now"], True)


def test_a_pipe_that_nobody_reads_and_a_socket_are_refused_and_stay(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "socket"))
        for name in ("pipe", "socket"):
            with pytest.raises(EvaluationError, match=f"cannot write .*{name}: No such device"):
                write_named(tmp_path / name, "now")
            assert not stat.S_ISREG((tmp_path / name).stat().st_mode)


def test_the_file_that_is_printed_to_keeps_what_is_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    stdout = tmp_path / "stdout"  # as /dev/stdout is
    stdout.symlink_to("/proc/self/fd/1")
    os.write(1, b"before, ")
    write_named(stdout, "now, ")
    os.write(1, b"after")
    assert capfd.readouterr().out == "before, now, after"


@pytest.mark.parametrize("name", ["folder", "loop", "file/below", "link/below", "x" * 300])
def test_what_cannot_be_written_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "file").write_text("before")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    with pytest.raises(EvaluationError, match=f"cannot write .*{name}: "):
        write_named(tmp_path / name, "now")
    assert (tmp_path / "file").read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder", "link", "loop"]


def test_half_written_files_of_others_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("before")
    (tmp_path / "file.partial").symlink_to(tmp_path / "precious")
    write_atomically(tmp_path / "file", "now")
    assert (tmp_path / "precious").read_text() == "before"


def test_missing_folders_are_made_and_half_a_pair_is_escaped(tmp_path: Path) -> None:
    write_named(tmp_path / "some" / "where" / "file", '{"text": "\udc80"}')
    assert (tmp_path / "some" / "where" / "file").read_text() == '{"text": "\\udc80"}'
