# SPDX-License-Identifier: Apache-2.0
"""Pages whose tables are made from code, and all else by hand."""

from collections.abc import Callable, Sequence
from pathlib import Path


def write_or_compare(
    page: Path, document: Callable[[str], str], arguments: Sequence[str], unlike: str
) -> int:
    """Write a page, or with ``--check`` only compare.

    Args:
        page: Of the repository.
        document: Makes its text from the one that is written.
        arguments: Of the command.
        unlike: What to say where the two differ, behind the page's name.

    Returns:
        The command's exit code.
    """
    written = page.read_text(encoding="utf-8")
    made = document(written)
    if list(arguments) != ["--check"]:
        page.write_text(made, encoding="utf-8")
    elif made != written:
        print(f"{page.name} {unlike}")
        return 1
    return 0
