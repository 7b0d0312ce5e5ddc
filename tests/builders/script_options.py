# SPDX-License-Identifier: Apache-2.0
"""Options of the repository's scripts, read by the scripts themselves."""

import argparse
import contextlib
import io
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tests.builders.pages import REPOSITORY


def file_of(words: Sequence[str]) -> Path:
    """The script of this repository that Python is given.

    Args:
        words: Behind ``python``.

    Raises:
        ValueError: There is none of this name.
    """
    name = words[0]
    file = REPOSITORY / name
    if name == "-m":
        name = words[1]
        place = REPOSITORY / name.replace(".", "/")
        file = place / "__main__.py" if place.is_dir() else place.with_suffix(".py")
    if not file.is_file():
        raise ValueError(f"there is no {name}")
    return file


class _Parsed(BaseException):
    """A script has read its options, and would begin."""


def check_script(words: Sequence[str]) -> None:
    """Let a script read its options, and no more.

    Args:
        words: Behind ``python``.

    Raises:
        ValueError: There is no such script, or it does not take them.
    """
    file = file_of(words)
    name, *options = words[1:] if words[0] == "-m" else words
    source = file.read_text(encoding="utf-8")
    if "parse_args(" not in source:
        if "sys.argv" not in source or any(one.startswith("-") for one in options):
            raise ValueError(f"{name} takes no options by argparse, so that none can be checked")
        return
    said = io.StringIO()
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(said):
        patch.setattr(sys, "argv", [str(file), *options])
        patch.setattr(argparse.ArgumentParser, "parse_args", _parse_only)
        patch.setenv("TOKENIZERS_PARALLELISM", "false")
        patch.syspath_prepend(str(file.parent))
        try:
            runpy.run_path(str(file), run_name="__main__")
        except _Parsed:
            return
        except SystemExit as error:
            raise ValueError(f"{name}: {said.getvalue().strip() or error}") from error
        finally:
            # Its neighbours, which are not to be taken for packages of that name.
            for one in set(sys.modules) - before:
                if "." not in one and (file.parent / f"{one}.py").is_file():
                    del sys.modules[one]
    raise ValueError(f"{name} did not read its options")


_PARSE_ARGS = argparse.ArgumentParser.parse_args


def _parse_only(parser: argparse.ArgumentParser, *arguments: Any) -> NoReturn:
    _PARSE_ARGS(parser, *arguments)
    raise _Parsed
