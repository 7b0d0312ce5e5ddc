# SPDX-License-Identifier: Apache-2.0
"""What a page has to say, and the files that say it."""

import json
from pathlib import Path
from typing import Any, NamedTuple


class Claim(NamedTuple):
    """A text that a page has to contain."""

    page: str
    """From the repository's root, as all paths here."""
    file: str
    """That the text was made from; with several, their paths between commas."""
    text: str
    """A whole table row, or words of a sentence around its figures, wherever lines end in them."""


class Kept:
    """The JSON files that runs left in a checkout, each read once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.known: dict[str, Any] = {}

    def read(self, file: str) -> Any:
        """What a file says.

        Args:
            file: From the repository's root.

        Raises:
            FileNotFoundError: There is none; a claim is to be taken out with its file.
        """
        if file not in self.known:
            self.known[file] = json.loads((self.root / file).read_text(encoding="utf-8"))
        return self.known[file]


def row(*cells: str) -> str:
    """A row of a table, as pages write it: an empty cell is one blank."""
    return "|" + "".join(f" {cell} |" if cell else " |" for cell in cells)


def files(*names: str) -> str:
    """Several in a `Claim.file`."""
    return ", ".join(names)
