# SPDX-License-Identifier: Apache-2.0
"""Where benchmarks print their tables."""

from rich.console import Console


def console_for_tables() -> Console:
    """Make one as wide as the terminal; in a file, wide enough that no line is broken."""
    width = None if Console().is_terminal else 190
    return Console(highlight=False, markup=False, width=width)
