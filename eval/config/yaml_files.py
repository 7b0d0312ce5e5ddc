# SPDX-License-Identifier: Apache-2.0
"""YAML 1.2 as values of JSON: what could mean two things is refused, with its line.

https://yaml.org/spec/1.2.2/#103-core-schema says what a plain word is: only ``true`` and ``false``
are booleans, ``010`` is ten, and ``1:30``, ``1_000`` and dates are text.
"""

import io
import json
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.resolver import VersionedResolver

from eval.errors import ConfigError

# Of a file; a device may have no end.
_MOST_BYTES = 10_000_000

_PLAIN_WORDS = {
    "null": (r"~|null|Null|NULL|", [*"~nN", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", [*"tTfF"]),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", [*"-+0123456789"]),
    "float": (
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        [*"-+.0123456789"],
    ),
}
"""What is not text, by the core schema, with the characters that it starts with."""


_WORDS_BY_START = {
    first: [
        (f"tag:yaml.org,2002:{kind}", re.compile(f"^(?:{pattern})$"))
        for kind, (pattern, starts) in _PLAIN_WORDS.items()
        if first in starts
    ]
    for first in {start for _, starts in _PLAIN_WORDS.values() for start in starts}
}


class _CoreSchema(VersionedResolver):
    """The types of plain words; ruamel's own are more: dates, ``<<``, underscores in numbers."""

    versioned_resolver = _WORDS_BY_START
    # Also of a document that says `%YAML 1.1`, where 010 would be eight.
    processing_version = (1, 2)


def read_yaml(file: Path) -> Any:
    """The value in a file.

    Raises:
        ConfigError: It cannot be read, or `parse_yaml` refuses it.
    """
    try:
        # Some editors begin a file with a mark of its encoding.
        with file.open("rb") as content:
            text = content.read(_MOST_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{file} is not UTF-8 (byte {error.start}: {error.reason}): save it as UTF-8"
        ) from error
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"cannot read {str(file)!r}: {error}") from error
    return parse_yaml(text, str(file))


def parse_yaml(text: str, source: str) -> Any:
    """The value of one document, of JSON's types only; no part of it is shared with another.

    Args:
        text: YAML 1.2.
        source: Where it is from, for the message.

    Raises:
        ConfigError: It is no YAML; or it has a key twice, a key that is not text, a number that is
            not finite, a tag, a merge key or text that no program can be given.
    """
    yaml = YAML(typ="safe", pure=True)
    yaml.Resolver = _CoreSchema
    try:
        return _plain(yaml.load(io.StringIO(text)), source, ())
    except MarkedYAMLError as error:
        raise ConfigError(f"{source}{_line(error)} is not YAML: {_problem(error)}") from error
    except YAMLError as error:
        raise ConfigError(f"{source} is not YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise ConfigError(f"{source} is nested too deeply, or holds itself") from error
    except (ValueError, LookupError) as error:
        # As of `!!int many`.
        raise ConfigError(f"{source} has a tag that its value does not fit: {error}") from error


def write_yaml(value: Any) -> str:
    """A value of JSON's types as YAML, in the order that it has, read back as the same."""
    yaml = YAML(typ="safe", pure=True)
    yaml.Resolver = _CoreSchema
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.width = 100
    text = io.StringIO()
    yaml.dump(value, text)
    return text.getvalue()


def refuse_keys_given_twice(text: str, source: str) -> None:
    """Refuse JSON, inside of a text, of which the last of two values would win without a word.

    Raises:
        ConfigError: A key stands twice, or the text begins as a JSON object and is none.
    """

    def once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
        seen: dict[str, Any] = {}
        for key, value in pairs:
            if key in seen:
                raise ConfigError(f"{source}: the key {key!r} stands twice in {text}")
            seen[key] = value
        return seen

    try:
        json.loads(text, object_pairs_hook=once)
    except ValueError as error:
        # A chat template may begin with a brace, too.
        if re.match(r'\s*\{\s*["}]', text):
            raise ConfigError(f"{source} is not JSON ({error}): {text}") from error
    except RecursionError as error:
        raise ConfigError(f"{source} is nested too deeply") from error


def _plain(value: Any, source: str, path: tuple[str, ...]) -> Any:
    if isinstance(value, dict):
        return {
            _key(key, source, path): _plain(of, source, (*path, str(key)))
            for key, of in value.items()
        }
    if isinstance(value, list):
        return [_plain(of, source, (*path, str(index))) for index, of in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{_at(source, path)} must be a finite number, not {value}")
    if isinstance(value, str):
        _refuse_unusable(value, source, path)
    elif not isinstance(value, (int, float, type(None))):
        raise ConfigError(
            f"{_at(source, path)} has a tag that makes it a {type(value).__name__}: leave it out"
        )
    return value


def _key(key: object, source: str, path: tuple[str, ...]) -> str:
    if not isinstance(key, str):
        raise ConfigError(f"{_at(source, path)}: the key {key!r} is not text: quote it")
    if key == "<<":
        raise ConfigError(f"{_at(source, path)}: YAML 1.2 has no merge key <<: write the keys out")
    _refuse_unusable(key, source, path)
    return key


def _refuse_unusable(text: str, source: str, path: tuple[str, ...]) -> None:
    if "\0" in text:
        raise ConfigError(f"{_at(source, path)} has a NUL character in it: {text!r}")
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise ConfigError(f"{_at(source, path)} has half of a surrogate pair in it: {text!r}")


def _at(source: str, path: tuple[str, ...]) -> str:
    return f"{source}: {'.'.join(path)}" if path else source


def _line(error: MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    return f", line {mark.line + 1}," if mark is not None else ""


def _problem(error: MarkedYAMLError) -> str:
    problem = " ".join(str(error.problem or error.context).split())
    # Only the key: its values may be secret.
    found = re.match(r'found duplicate key "?(.+?)"? with value', problem)
    return f"the key {found[1]!r} is given twice" if found else problem
