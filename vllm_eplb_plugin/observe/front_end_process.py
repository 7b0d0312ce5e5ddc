# SPDX-License-Identifier: Apache-2.0
"""The process that serves requests, as its engines know it, and what to do when it is gone.

vLLM's engines, workers and coordinator do not notice that their front end was killed: they keep
devices and memory for ever.
"""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

VARIABLE = "EPLB_PLUGIN_FRONT_END"
"""The environment variable that every process of a server inherits from its front end."""

_SECONDS_TO_END = 5.0
_TITLE = os.environ.get("VLLM_PROCESS_NAME_PREFIX", "VLLM") + "::"
"""What vLLM calls its engines, workers and coordinator: a front end that is somebody's program may
have started others."""


def mark_front_end() -> None:
    """Let the processes that this one starts know it.

    Not in one of several API servers, which vLLM starts as children of the front end.
    """
    is_child = multiprocessing.parent_process() is not None and VARIABLE in os.environ
    if not is_child and (mine := _identity(os.getpid())) is not None:
        os.environ[VARIABLE] = mine


def has_ended(told: str) -> bool:
    """Say whether a front end has ended; not where that cannot be told, as from another host.

    Args:
        told: Value of the environment variable.
    """
    pid, _, rest = told.partition(" ")
    here = _identity(os.getpid())
    if here is None or rest.split(" ")[-1] != here.split(" ")[-1] or not pid.isdigit():
        return False
    return _identity(int(pid)) != told


def started_by(told: str) -> list[str]:
    """Find the children of a front end that lives, and theirs: those that it forked inherit no
    variable that could be read from outside, as vLLM's coordinator, and loopback's ranks.

    Returns:
        What `end_server` needs to know of them.
    """
    processes = [int(one.name) for one in Path("/proc").iterdir() if one.name.isdigit()]
    parents = {pid: _parent(pid) for pid in processes}
    found: list[int] = []
    generation = [pid for pid in processes if str(parents[pid]) == told.partition(" ")[0]]
    while generation:
        found += generation
        generation = [pid for pid in processes if parents[pid] in generation]
    return [one for pid in found if (one := _identity(pid))]


def end_server(told: str, started: Iterable[str] = ()) -> None:
    """End all that vLLM has started for this front end, this process among it.

    A process of its own does it: an engine that ends takes its workers with it, and who would then
    end what does not heed SIGTERM?

    Args:
        told: Value of the environment variable.
        started: What `started_by` found while the front end lived.
    """
    python = Path("/proc/self/exe").readlink()
    # As a script, of which Python imports nothing else.
    subprocess.Popen([python, "-I", "-S", __file__, told, *started], start_new_session=True)
    time.sleep(_SECONDS_TO_END + 5)
    os._exit(1)


def _end(told: str, *started: str) -> None:
    for sent in (signal.SIGTERM, signal.SIGKILL):
        for pid in _others(told, started):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, sent)
        if sent == signal.SIGTERM:
            end = time.monotonic() + _SECONDS_TO_END
            while time.monotonic() < end and any(_others(told, started)):
                time.sleep(0.1)


def _identity(pid: int) -> str | None:
    """A process, told from a later one of the same number, and its space of numbers."""
    with contextlib.suppress(OSError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        if fields[0] in "ZX":
            return None
        return f"{pid} {fields[19]} {Path('/proc/self/ns/pid').readlink()}"
    return None


def _parent(pid: int) -> int | None:
    with contextlib.suppress(OSError, IndexError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return None


def _others(told: str, started: Collection[str]) -> Iterator[int]:
    wanted = f"{VARIABLE}={told}".encode()
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):  # it has ended, or is somebody else's
            inherits = wanted in (folder / "environ").read_bytes().split(b"\0")
            if not inherits and _identity(int(folder.name)) not in started:
                continue
            if (folder / "cmdline").read_bytes().startswith(_TITLE.encode()):
                yield int(folder.name)


if __name__ == "__main__":
    _end(*sys.argv[1:])
