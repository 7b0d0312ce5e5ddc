# SPDX-License-Identifier: Apache-2.0
"""What ends an evaluation before it has a verdict; each message is meant for the person."""


class EvaluationError(Exception):
    """The evaluation could not run: printed without a traceback, exit code 2."""


class ConfigError(EvaluationError):
    """The configuration is wrong: an unknown key, a wrong value, or one that cannot work."""


class DatasetError(EvaluationError):
    """The questions are not there or cannot be read."""


class ServerError(EvaluationError):
    """A server did not start or stopped answering."""


class EventsError(EvaluationError):
    """An events file cannot be read."""


class TransformersError(EvaluationError):
    """Greedy decoding by transformers failed."""


class RunFolderError(EvaluationError):
    """The folder of a run is in use or is not one of a run."""


class GateError(EvaluationError):
    """A run cannot be judged: what it is judged by is wrong, or what it left is incomplete."""
