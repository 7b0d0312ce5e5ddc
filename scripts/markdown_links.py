# SPDX-License-Identifier: Apache-2.0
"""Whether relative links of the pages lead to files that are there, and fragments to headings.

    .venv/bin/python scripts/markdown_links.py

It names every link that is wrong, as GitHub would follow it. Links to other hosts are not tried.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[1]

PAGES = ("*.md", ".github/**/*.md", "docs/**/*.md", "eval/models/*/README.md")

_MARKDOWN = MarkdownIt("commonmark").enable("table")
_HTML_LINK = re.compile(r'\b(?:href|src|srcset)="([^"]+)"')
_HTML_ANCHOR = re.compile(r'\b(?:id|name)="([^"]+)"')


class Link(NamedTuple):
    """A link or a picture, and the line on which its paragraph or row begins."""

    line: int
    target: str


class Page(NamedTuple):
    """What a page links to, and by which fragments others link into it."""

    links: list[Link]
    anchors: set[str]


def read_page(text: str) -> Page:
    """Return the links and the anchors of a page of Markdown."""
    page = Page([], set())
    line = 1
    heading = False
    for token in _MARKDOWN.parse(text):
        line = token.map[0] + 1 if token.map else line
        if token.type == "inline" and heading:
            page.anchors.add(_unique(slug(_plain(token)), page.anchors))
        heading = token.type == "heading_open"
        for part in [token, *(token.children or [])]:
            page.links.extend(Link(line, target) for target in _targets(part))
            if part.type.startswith("html_"):
                page.anchors.update(_HTML_ANCHOR.findall(part.content))
    return page


def slug(heading: str) -> str:
    """Return the fragment by which GitHub links to a heading of this text."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _unique(name: str, others: set[str]) -> str:
    """The name, or with a number where a heading above has it."""
    number, one = 0, name
    while one in others:
        number += 1
        one = f"{name}-{number}"
    return one


def _plain(inline: Token) -> str:
    parts = inline.children or []
    return "".join(part.content for part in parts if part.type in ("text", "code_inline"))


def _targets(token: Token) -> list[str]:
    if token.type.startswith("html_"):
        return _HTML_LINK.findall(token.content)
    target = token.attrGet({"link_open": "href", "image": "src"}.get(token.type, ""))
    return [str(target)] if target else []


def pages(root: Path) -> list[Path]:
    """Return the pages of a repository."""
    return sorted({file for pattern in PAGES for file in root.glob(pattern)})


def problems(root: Path = ROOT) -> Iterator[str]:
    """Yield every wrong link as ``file:line: link: what is wrong``.

    Args:
        root: The folder of the repository.
    """
    read = {file: read_page(file.read_text(encoding="utf-8")) for file in pages(root)}
    for file, page in read.items():
        for link in page.links:
            if problem := _problem(root, file, link.target, read):
                yield f"{file.relative_to(root)}:{link.line}: {link.target}: {problem}"


def _problem(root: Path, file: Path, target: str, read: dict[Path, Page]) -> str | None:
    """What is wrong with a link of a file; None: nothing."""
    address = urlsplit(target)
    if address.scheme or address.netloc:
        return None
    there = (file.parent / unquote(address.path)).resolve() if address.path else file
    if address.path.startswith("/") or not there.is_relative_to(root):
        return "leads out of the repository"
    if not there.exists():
        return "there is no such file"
    fragment = unquote(address.fragment)
    if fragment and there in read and fragment not in read[there].anchors:
        return "there is no such heading"
    return None


def main() -> int:
    """Print every wrong link."""
    found = list(problems())
    for problem in found:
        print(problem)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
