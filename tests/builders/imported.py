# SPDX-License-Identifier: Apache-2.0
"""A process that has imported a program, of which runs are forks.

Importing takes most of a short run's time. Requests are lines of JSON on standard input, answers
exit codes on standard output.
"""

import contextlib
import gc
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
_SECONDS = 300
"""After which a run that hangs is ended."""


class Imported:
    """Runs ``python -m MODULE``, one after another."""

    def __init__(self, folder: Path, module: str, imports: Sequence[str]) -> None:
        """Import it and what it imports later.

        Args:
            folder: For what the runs print, and for ``HF_HOME``, which counts when it is imported.
            module: What is run.
            imports: Besides it.
        """
        self._folder = folder
        self._huggingface = folder / "huggingface"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.builders.imported", module, *imports],
            cwd=REPOSITORY,
            env={**os.environ, "HF_HOME": str(self._huggingface)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._answer() == "ready"

    def run(
        self, *arguments: str, folder: Path, environment: Mapping[str, str]
    ) -> "subprocess.CompletedProcess[str]":
        """Run it once.

        Args:
            arguments: Of its command line.
            folder: In which it runs.
            environment: All of it; its ``HF_HOME`` is reached by another path.
        """
        assert self._process.stdin is not None
        self._huggingface.unlink(missing_ok=True)
        self._huggingface.symlink_to(environment["HF_HOME"])
        request = {
            "arguments": arguments,
            "folder": str(folder),
            "environment": {**environment, "HF_HOME": str(self._huggingface)},
            "output": str(self._folder / "output"),
            "errors": str(self._folder / "errors"),
        }
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        code = int(self._answer())
        output, errors = ((self._folder / name).read_text() for name in ("output", "errors"))
        return subprocess.CompletedProcess(arguments, code, output, errors)

    def stop(self) -> None:
        """End it, and whatever of a run is left."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


def main(module: str, *imports: str) -> None:
    """Answer requests until standard input ends; in a fork, be the program."""
    answers = os.fdopen(os.dup(1), "w")
    for name in (f"{module}.cli", *imports):
        importlib.import_module(name)
    # Else the end of each run goes through all of it, and Linux copies the memory for that.
    gc.freeze()
    print("ready", file=answers, flush=True)
    for line in iter(sys.stdin.readline, ""):
        request = json.loads(line)
        if not (pid := os.fork()):
            _become(request)
            sys.argv = [module, *request["arguments"]]
            runpy.run_module(module, run_name="__main__", alter_sys=True)
            return
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), file=answers, flush=True)


def _become(request: dict[str, Any]) -> None:
    for number, name, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, request["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
        (2, request["errors"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
    ):
        file = os.open(name, flags)
        os.dup2(file, number)
        os.close(file)
    signal.alarm(_SECONDS)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])


if __name__ == "__main__":
    main(*sys.argv[1:])
