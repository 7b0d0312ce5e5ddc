# SPDX-License-Identifier: Apache-2.0
"""The folder of who follows a page: a checkout, with the files that the page has written."""

import re
from pathlib import Path

from tests.builders.pages import REPOSITORY, blocks_of, text_of

_IN_A_CHECKOUT = ("ci", "docs", "eval", "pyproject.toml", "scripts", "tests")
_NAMED = re.compile(r"# ([\w.-]+\.ya?ml)\n")
_OF_PYTHON = re.compile(r"[Ii]n a file `(\w+\.py)`")


def lay_out(page: str, folder: Path) -> None:
    """Make the folder.

    A block of YAML whose first line is a comment with a file's name is that file, and so is the
    first block of Python on a page that says "in a file `name.py`".
    """
    for name in _IN_A_CHECKOUT:
        (folder / name).symlink_to(REPOSITORY / name)
    for block in blocks_of(page):
        if block.language == "yaml" and (named := _NAMED.match(block.text)):
            (folder / named[1]).write_text(block.text, encoding="utf-8")
    if named := _OF_PYTHON.search(text_of(page)):
        code = next(block.text for block in blocks_of(page) if block.language == "python")
        (folder / named[1]).write_text(code, encoding="utf-8")
