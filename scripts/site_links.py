# SPDX-License-Identifier: Apache-2.0
"""Whether every link in a site of HTML leads somewhere, and nothing is loaded from the network.

    .venv-docs/bin/python scripts/site_links.py build/site

scripts/docs runs it on what Sphinx made; it names every link that is wrong.
"""

import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

LOADED = {("script", "src"), ("img", "src"), ("iframe", "src"), ("source", "src")}
"""Attributes whose address a browser loads by itself."""

_ICONS_AND_STYLES = ("stylesheet", "icon", "preload", "prefetch", "modulepreload", "manifest")
_LOADED_BY_STYLES = re.compile(r"""url\(\s*["']?([^"')]+)|@import\s+["']([^"']+)""")


class Link(NamedTuple):
    """An address in a file."""

    target: str
    is_loaded: bool
    """By the browser, before anybody follows it."""


class Page(NamedTuple):
    """What one file links to, and by which names others link into it."""

    links: list[Link]
    anchors: set[str]


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.page = Page([], set())
        self._in_style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value for name, value in attrs if value is not None}
        self._in_style = tag == "style"
        self.page.anchors.update(values[name] for name in ("id", "name") if name in values)
        relation = values.get("rel", "").split()
        is_loaded = tag == "link" and any(one in _ICONS_AND_STYLES for one in relation)
        for name, value in values.items():
            if name in ("href", "xlink:href"):
                self._link(value, is_loaded)
            elif (tag, name) in LOADED:
                self._link(value, True)
            elif name == "srcset":
                for candidate in value.split(","):
                    self._link(candidate.split()[0], True)
            elif name == "style":
                self.page.links.extend(links_of_styles(value))

    def handle_data(self, data: str) -> None:
        if self._in_style:
            self.page.links.extend(links_of_styles(data))

    def handle_endtag(self, tag: str) -> None:
        self._in_style = False

    def _link(self, target: str, is_loaded: bool) -> None:
        self.page.links.append(Link(target.strip(), is_loaded))


def read_page(text: str) -> Page:
    """Return what a page of HTML links to, and its anchors."""
    reader = _Reader()
    reader.feed(text)
    reader.close()
    return reader.page


def links_of_styles(text: str) -> list[Link]:
    """Return what a style sheet loads."""
    return [Link(url or imported, True) for url, imported in _LOADED_BY_STYLES.findall(text)]


def problems(site: Path) -> Iterator[str]:
    """Yield every wrong link as ``page: link: what is wrong``.

    Args:
        site: The folder of the site.
    """
    pages = {file: read_page(_text(file)) for file in sorted(site.rglob("*.html"))}
    styles = {file: Page(links_of_styles(_text(file)), set()) for file in site.rglob("*.css")}
    for file, page in {**pages, **styles}.items():
        for link in dict.fromkeys(page.links):
            if problem := _problem(site, file, link, pages):
                yield f"{file.relative_to(site)}: {link.target}: {problem}"


def _problem(site: Path, file: Path, link: Link, pages: dict[Path, Page]) -> str | None:
    """What is wrong with one link; None: nothing."""
    address = urlsplit(link.target)
    if address.scheme == "data":
        return None
    if address.scheme or address.netloc:
        return "is loaded from the network" if link.is_loaded else None
    if address.path.startswith("/"):
        return "leads out of the site"
    there = (file.parent / unquote(address.path)).resolve() if address.path else file
    if not there.is_relative_to(site):
        return "leads out of the site"
    if not there.is_file():
        return "there is no such file"
    fragment = unquote(address.fragment)
    if fragment and there in pages and fragment not in pages[there].anchors:
        return "there is no such place in that page"
    return None


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8")


def main(site: Path) -> int:
    """Print every wrong link of a site."""
    found = list(problems(site.resolve()))
    for problem in found:
        print(problem)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
