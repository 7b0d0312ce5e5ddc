# SPDX-License-Identifier: Apache-2.0
"""What ends an evaluation before it has a verdict; each message is meant for the person."""

import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

from eval.visible import visible


class EvaluationError(Exception):
    """The evaluation could not run: printed without a traceback, exit code 2."""


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


def run_to_its_end(command: Callable[[], object]) -> NoReturn:
    """Run a command line's application, and exit: 1 is said by a verdict and by nothing else.

    ``command`` ends by `SystemExit`, as typer's applications do. Whatever keeps it from its end is
    exit code 2, and so is output that was lost where it is all that the command gives.
    """
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
