# SPDX-License-Identifier: Apache-2.0
"""The terminal, on which text of logs, names and answers shows as it is."""

import sys
from typing import Any

from rich.console import Console, RenderableType
from rich.status import Status
from rich.text import Text

from eval.visible import visible


class PlainConsole(Console):
    """Takes no text for markup, for emoji or for what a terminal obeys.

    What is printed with ``soft_wrap`` stays one line in a file, for those who search it, and is
    wrapped between words on a terminal, which would break it within them.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def print(self, *objects: Any, soft_wrap: bool | None = None, **options: Any) -> None:
        """Print as Rich does, but for ``soft_wrap`` on a terminal."""
        wanted = self.soft_wrap if soft_wrap is None else soft_wrap
        super().print(*objects, soft_wrap=wanted and not self.is_terminal, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """What all strings go through, also those in a table."""
        return super().render_str(visible(text), **options)

    def status(self, status: RenderableType, **options: Any) -> Status:
        """What goes on, on a terminal until it is over; else a line of standard error.

        For a string Rich takes markup here whatever the console is told.
        """
        if not self.is_interactive and not self.quiet:
            # Whoever reads standard output has what was found there, and nothing else.
            print(_plain(status), file=sys.stderr, flush=True)
        return _PlainStatus(_plain(status), console=self, **options)


class _PlainStatus(Status):
    def update(self, status: RenderableType | None = None, **options: Any) -> None:
        super().update(_plain(status) if status else None, **options)


def shown(text: str, style: str = "") -> Text:
    """A part of a text that has styles."""
    return Text(visible(text), style)


def _plain(status: RenderableType) -> RenderableType:
    return shown(status) if isinstance(status, str) else status
