# SPDX-License-Identifier: Apache-2.0
"""What pages link to and is no page: files and folders of the repository.

The site has the repository's folders, and so a link stays as it is. A file that is linked is copied
to where it belongs; a folder is copied, too, and gets a page that lists its files. The comment
``<!-- frame: FILE TITLE -->``, which GitHub does not show, becomes a frame that shows the file.
"""

import html
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

_FRAME = re.compile(r"<!-- frame: (\S+) (.+) -->")
_ATTRIBUTE = re.compile(r'\b(?:src|srcset|href)="([^"#:]+)"')
_KEPT = "linked_files"
"""The key of a page's metadata with what it links to, from the root of the repository."""


class LinkFiles(SphinxTransform):
    """Turns links to files and folders into plain ones, and remembers what they lead to."""

    default_priority = 400

    def apply(self, **_: Any) -> None:
        """Do so in the page that is read."""
        self._linked: set[str] = set()
        for link in list(self.document.findall(_is_of_no_page)):
            self._link(link)
        for raw in list(self.document.findall(nodes.raw)):
            self._frame(raw)
        self.env.metadata[self.env.docname][_KEPT] = sorted(self._linked)

    def _link(self, link: nodes.Element) -> None:
        target = link["reftarget"]
        file = self._found(target)
        if file is None:
            return
        uri = f"{target.rstrip('/')}/index.html" if file.is_dir() else target
        link.replace_self(nodes.reference("", "", *link.children, refuri=quote(uri), internal=True))

    def _frame(self, raw: nodes.Element) -> None:
        text = raw.astext().strip()
        if frame := _FRAME.fullmatch(text):
            file, title = map(html.escape, frame.groups())
            text = f'<iframe class="frame" src="{file}" title="{title}" loading="lazy"></iframe>\n'
            raw.replace_self(nodes.raw("", text, format="html"))
        for target in _ATTRIBUTE.findall(text):
            self._found(target)

    def _found(self, target: str) -> Path | None:
        """The file or folder of a link, which is remembered; None: it is a page, or nothing."""
        name, path = self.env.relfn2path(target, self.env.docname)
        file = Path(path)
        if not file.exists() or file.suffix == ".md":
            return None
        self._linked.add(name.rstrip("/"))
        return file


def _is_of_no_page(node: nodes.Node) -> bool:
    if isinstance(node, addnodes.pending_xref):
        return node["reftype"] == "myst" and node["refdomain"] != "doc"
    return isinstance(node, addnodes.download_reference)


def linked(app: Sphinx) -> list[Path]:
    """Everything that pages link to and is no page, from the root of the repository."""
    pages = app.env.metadata.values()
    return sorted({Path(name) for page in pages for name in page.get(_KEPT, ())})


def files_in(folder: Path) -> list[Path]:
    """The files of a folder and of those in it, but for compiled ones."""
    found = (file.relative_to(folder) for file in folder.rglob("*") if file.is_file())
    return sorted(file for file in found if "__pycache__" not in file.parts)


def list_folders(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yield a page for every folder that is linked, with its files."""
    for folder in linked(app):
        if not (app.srcdir / folder).is_dir() or f"{folder}/index" in app.env.found_docs:
            continue
        items = "".join(
            f'<li><a href="{quote(file.as_posix())}">{html.escape(file.as_posix())}</a></li>\n'
            for file in files_in(app.srcdir / folder)
        )
        title = html.escape(folder.as_posix())
        body = f"<h1>{title}</h1>\n<ul>\n{items}</ul>\n"
        yield f"{folder.as_posix()}/index", {"title": title, "body": body}, "page.html"


def copy_files(app: Sphinx, exception: Exception | None) -> None:
    """Copy everything that is linked to where links look for it."""
    if exception is not None or app.builder.format != "html":
        return
    for name in linked(app):
        there = app.srcdir / name
        for file in [name / one for one in files_in(there)] if there.is_dir() else [name]:
            copy = app.outdir / file
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(app.srcdir / file, copy)


def setup(app: Sphinx) -> dict[str, Any]:
    """Add this to Sphinx."""
    app.add_transform(LinkFiles)
    app.connect("html-collect-pages", list_folders)
    app.connect("build-finished", copy_files)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
