# SPDX-License-Identifier: Apache-2.0
"""What ends an evaluation before it has a verdict; each message is meant for the person."""

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from eval.secrets import SECRETS, nothing_secret_is_printed
from eval.visible import visible


class EvaluationError(Exception):
    """The evaluation could not run: printed without a traceback, exit code 2.

    Its message is kept and shown, so no secret gets into it.
    """

    def __init__(self, message: str) -> None:
        super().__init__(_writable(message))


class ConfigError(EvaluationError):
    """The configuration is wrong: an unknown key, a wrong value, or one that cannot work."""


class DatasetError(EvaluationError):
    """The questions are not there or cannot be read."""


class ServerError(EvaluationError):
    """A server did not start or stopped answering."""


class InstallationError(EvaluationError):
    """The server's environment cannot be examined."""


class PreflightError(EvaluationError):
    """Something that the evaluation needs is missing."""


class EventsError(EvaluationError):
    """An events file cannot be read."""


class OracleError(EvaluationError):
    """Greedy decoding by transformers failed."""


class RunFolderError(EvaluationError):
    """The folder of a run is in use or is not one of a run."""


class GateError(EvaluationError):
    """A run cannot be judged: what it is judged by is wrong, or what it left is incomplete."""


def _writable(text: str) -> str:
    """Without secrets, and without half a character, which no file in UTF-8 can hold."""
    return SECRETS.hide(text).encode(errors="backslashreplace").decode()


def in_words(error: OSError, what: str = "") -> str:
    """What the system refused, without the number that Python puts before it."""
    reason = error.strerror or str(error) or type(error).__name__
    return f"{error.filename or what}: {reason}" if error.filename or what else reason


def why_it_ended(error: Exception, doing: str, folder: Path) -> str:
    """In a sentence or more, for a result.

    The traceback of an error that nobody foresaw is written into ``folder``, if that works.
    """
    if isinstance(error, EvaluationError):
        return str(error)
    if isinstance(error, OSError):
        return _writable(f"{doing}: {in_words(error)}")
    file = folder / "unexpected-error.txt"
    text = SECRETS.hide("".join(traceback.format_exception(error)))
    try:
        file.write_text(text, encoding="utf-8", errors="backslashreplace")
        where = f"its traceback is in {file}"
    except OSError as full:
        where = f"its traceback could not be written: {in_words(full)}"
    name = type(error).__name__
    return _writable(f"{doing}: an error of the harness itself ({name}: {error}); {where}")


def run_to_its_end(command: Callable[[], object]) -> NoReturn:
    """Run a command line's application, and exit: 1 is said by a verdict and by nothing else.

    ``command`` ends by `SystemExit`, as typer's applications do. Whatever keeps it from its end is
    exit code 2, and so is output that was lost where it is all that the command gives. Nothing
    secret is printed meanwhile.
    """
    SECRETS.learn(os.environ)
    with nothing_secret_is_printed():
        _run(command)


def _run(command: Callable[[], object]) -> NoReturn:
    try:
        command()
        code: object = 0
    except EvaluationError as error:
        print(f"error: {visible(str(error))}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        code = 2
    except SystemExit as ended:
        code = ended.code or 0
    except Exception:
        traceback.print_exc()
        code = 2
    # typer has codes of its own: 130 for Ctrl-C.
    sys.exit(code if code in (0, 1, 3) else 2)
