# SPDX-License-Identifier: Apache-2.0
"""Code and commands in a fork of this process, which has imported what takes long."""

import os
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from typing import NoReturn


def run_forked(do: Callable[[], object], **environment: str) -> subprocess.CompletedProcess[str]:
    """Call something with other variables in a process of its own; what it prints is kept."""
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        sys.stdout.flush()
        if not (pid := os.fork()):
            os.dup2(output.fileno(), 1)
            os.dup2(errors.fileno(), 2)
            _run(do, environment)
        _, status = os.waitpid(pid, 0)
        output.seek(0)
        errors.seek(0)
        code = os.waitstatus_to_exitcode(status)
        return subprocess.CompletedProcess([], code, output.read(), errors.read())


def _run(do: Callable[[], object], environment: dict[str, str]) -> NoReturn:
    code = 1
    try:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
        os.environ.update(environment)
        signal.alarm(300)  # ends what hangs
        do()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
