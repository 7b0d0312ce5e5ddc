# SPDX-License-Identifier: Apache-2.0
"""Values that options of several kinds have."""

from pathlib import Path
from typing import Annotated, TypeAlias

from pydantic import BeforeValidator


def _named(folder: object) -> object:
    # Path("") is the folder in which the server happens to run.
    if folder == "":
        raise ValueError("is no folder: write null for none")
    return folder


def _whole(value: object) -> object:
    # 1e9 is how bytes are written.
    return int(value) if isinstance(value, float) and value.is_integer() else value


Folder: TypeAlias = Annotated[Path, BeforeValidator(_named)]
WHOLE = BeforeValidator(_whole)
"""For an integer that may be written as 1e9."""
