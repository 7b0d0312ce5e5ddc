# SPDX-License-Identifier: Apache-2.0
"""What a wrong setting is told."""

import difflib
from typing import Any, get_args

from pydantic import BaseModel


def describe(problem: dict[str, Any], settings: type[BaseModel]) -> str:
    """Describe one of pydantic's errors; of an unknown key, with the nearest of its object."""
    name = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        *above, key = problem["loc"]
        if not above and (owner := _owner(str(key), settings)) is not None:
            return f"unknown setting {name!r}: it belongs into {owner!r}"
        nearest = difflib.get_close_matches(str(key), _keys_at(above, settings), n=1, cutoff=0.0)
        return f"unknown setting {name!r}, the nearest is {'.'.join([*above, *nearest])!r}"
    message = str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] == "model_type":
        message = "has to be a JSON object"
    return f"setting {name!r} has the value {problem['input']!r}: {message}" if name else message


def _owner(key: str, settings: type[BaseModel]) -> str | None:
    """Find the setting whose object has such a key."""
    return next((own for own in settings.model_fields if key in _keys_at([own], settings)), None)


def _keys_at(place: list[str], settings: Any) -> list[str]:
    """Find the keys of the object in which a key is unknown."""
    model = settings
    for key in place:
        kinds = [model.model_fields[key].annotation, *get_args(model.model_fields[key].annotation)]
        models = [kind for kind in kinds if hasattr(kind, "model_fields")]
        if not models:
            return []
        [model] = models
    return list(model.model_fields)
