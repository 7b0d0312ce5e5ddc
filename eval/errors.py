# SPDX-License-Identifier: Apache-2.0
"""What ends an evaluation before it has a verdict; each message is meant for the person."""

import sys
import traceback
from collections.abc import Callable

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


def run_to_its_end(command: Callable[[], object]) -> None:
    """Run a command line's application; whatever keeps it from its end is exit code 2."""
    try:
        command()
    except EvaluationError as error:
        print(f"error: {visible(str(error))}", file=sys.stderr)
        sys.exit(2)
    except Exception:
        # Python's own exit code for this is 1, which elsewhere says that a run failed.
        traceback.print_exc()
        sys.exit(2)
