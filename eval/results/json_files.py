# SPDX-License-Identifier: Apache-2.0
"""JSON files of a run, read as what they are."""

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from eval.errors import RunFolderError

_Model = TypeVar("_Model", bound=BaseModel)


def read_model(model: type[_Model], file: Path) -> _Model:
    """A whole file.

    Raises:
        RunFolderError: It cannot be read, or is not what ``model`` says.
    """
    return parse_model(model, read_bytes(file), str(file))


def read_bytes(file: Path) -> bytes:
    """What is in a file.

    Raises:
        RunFolderError: It cannot be read.
    """
    try:
        return file.read_bytes()
    except OSError as error:
        raise RunFolderError(f"cannot read {file}: {error.strerror}") from error


def parse_model(model: type[_Model], text: bytes, where: str) -> _Model:
    """A text that stands ``where``.

    Raises:
        RunFolderError: It is not what ``model`` says.
    """
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in problem["loc"])
        raise RunFolderError(
            f"{where} was not written by this harness, or not to its end: "
            f"{key and f'{key}: '}{problem['msg']}"
        ) from error
