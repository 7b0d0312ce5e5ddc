# SPDX-License-Identifier: Apache-2.0
"""Text from elsewhere in Markdown: it shows as the text that it is, on GitHub, too."""

import html
import re

from eval.visible import visible

_UNSEEN = "&#8203;"
"""A space without width: a name after it is nobody's, a number no issue's."""

_MARKS = re.compile(
    r"""
      (?P<mark> [\\`*\[|~$] | <(?=[\w/!?])
        # Inside of a word they are no emphasis.
        | (?<![A-Za-z0-9])_ | _(?![A-Za-z0-9])
        # Of an entity, and of an address.
        | &(?=\#?\w) | :(?=//) | (?<=[wW]{3})\.
      )
      # GitHub looks for mentions, issues and emoji where backslashes are gone already.
    | (?P<reference> @(?=[\w-]) | \#(?=\d) | :(?=[\w+-]+:) )
    """,
    re.VERBOSE,
)
_START = re.compile(r"\A(\d{0,9})((?<!\d)[-+=>#]|(?<=\d)[.)])")
"""What makes a list, a heading or a quotation of a paragraph."""


class Markdown(str):
    """Text that is Markdown already."""

    __slots__ = ()


def inline(text: str) -> Markdown:
    """In a line, such as a cell of a table."""
    lines = visible(text).split("\n")
    return Markdown("<br>".join(_MARKS.sub(_escape, line.strip()) for line in lines))


def block(text: str) -> Markdown:
    """At the start of a paragraph, or of a list's item, where a word may be a mark, too."""
    escaped = inline(text)
    return Markdown(_START.sub(lambda found: f"{found[1]}\\{found[2]}", escaped, count=1))


def _escape(found: re.Match[str]) -> str:
    return f"\\{found[0]}" if found["mark"] else f"{found[0]}{_UNSEEN}"


def fenced(text: str, language: str) -> Markdown:
    """As a block of code, whatever fences it has."""
    shown = visible(text).removesuffix("\n")
    fence = "`" * (1 + max(2, *map(len, re.findall("`*", shown))))
    return Markdown(f"{fence}{language}\n{shown}\n{fence}")


def folded(title: str, text: Markdown) -> Markdown:
    """Behind a title, which is not Markdown but HTML."""
    shown = html.escape(" ".join(visible(title).split())).replace("@", f"@{_UNSEEN}")
    return Markdown(f"<details><summary>{shown}</summary>\n\n{text}\n\n</details>")
