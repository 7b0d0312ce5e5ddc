# SPDX-License-Identifier: Apache-2.0
"""What other processes will have done soon, however busy the machine is."""

import time
from collections.abc import Callable
from pathlib import Path


def wait_until(reached: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, f"not so after {seconds:g} s"
        time.sleep(0.02)


def alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):  # it ends while it is read
        return False
    return state != "Z"
