# SPDX-License-Identifier: Apache-2.0
"""Code and prose that every environment with Python and the packages for training has.

Code is Python's own library without its tests. Prose is what packages say of themselves, their
licences, the language reference that `help()` shows, and docstrings of packages. Both differ with
the installed releases, so a training keeps their names and digests.
"""

import ast
import hashlib
import importlib.util
import os
import re
import sysconfig
import zlib
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any, NamedTuple

from tiny_tokenizer import ALPHABET

HELD_OUT_SHARE = 10
"""One text in so many is held out."""
FEWEST_CHARACTERS = 200
MOST_FOREIGN = 0.01
"""Share of characters that the tokenizer does not know; with more a text is left out."""

TESTS = {"test", "tests", "idle_test"}
NOT_CODE = TESTS | {"site-packages", "dist-packages", "pydoc_data", "__pycache__"}
DOCUMENTED = ("numpy", "matplotlib")
"""Packages that training needs and whose docstrings are long."""

_FOREIGN = re.compile(f"[^{re.escape(ALPHABET)}]")
_LICENCE = re.compile(r"(LICEN[CS]E|COPYING|NOTICE|AUTHORS|README)", re.IGNORECASE)


class Text(NamedTuple):
    """One text and where it is from."""

    name: str
    """Without the folder that packages are in, which differs by machine."""
    content: str


def code() -> list[Text]:
    """Source files of Python's own library."""
    library = Path(sysconfig.get_path("stdlib"))
    return distinct(
        Text(f"python/{file.relative_to(library).as_posix()}", _read(file))
        for file in python_files(library, NOT_CODE)
    )


def prose() -> list[Text]:
    """Documentation; a paragraph that several texts have stands in the first of them only."""
    found = [*_descriptions(), *_topics(), *_docstrings()]
    return distinct(without_repeats(found))


def is_held_out(text: Text) -> bool:
    """Whether training never sees it; its content decides, so no name or seed changes that."""
    return zlib.crc32(text.content.encode()) % HELD_OUT_SHARE == 0


def record(texts: Iterable[Text]) -> dict[str, Any]:
    """What tells these texts from others."""
    digest = hashlib.sha256()
    listed = list(texts)
    for text in listed:
        digest.update(f"{text.name}\0{text.content}\0".encode())
    return {
        "texts": len(listed),
        "held_out": sum(map(is_held_out, listed)),
        "characters": sum(len(text.content) for text in listed),
        "sha256": digest.hexdigest(),
    }


def distinct(texts: Iterable[Text]) -> list[Text]:
    """Those that can be learned from, in characters of the tokenizer, each content once, by name.

    A text that was held out under one name would be learned under another.
    """
    found: dict[str, Text] = {}
    for name, content in sorted(texts):
        plain = content.expandtabs(4).replace("\r\n", "\n")
        plain, foreign = _FOREIGN.subn("?", plain)
        if len(plain) >= FEWEST_CHARACTERS and foreign <= MOST_FOREIGN * len(plain):
            found.setdefault(plain, Text(name, plain))
    return list(found.values())


def without_repeats(texts: Iterable[Text]) -> Iterator[Text]:
    """The texts without paragraphs that an earlier one has: most licences are a few known ones."""
    seen: set[str] = set()
    for name, content in sorted(texts):
        kept = []
        for paragraph in content.replace("\r\n", "\n").split("\n\n"):
            words = " ".join(paragraph.lower().split())
            if words and words not in seen:
                seen.add(words)
                kept.append(paragraph)
        yield Text(name, "\n\n".join(kept))


def python_files(folder: Path, without: set[str]) -> Iterator[Path]:
    """Python files in folders that have none of these names."""
    for here, folders, files in os.walk(folder):
        folders[:] = sorted(set(folders) - without)
        yield from (Path(here, name) for name in sorted(files) if name.endswith(".py"))


def _read(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace")


def _descriptions() -> Iterator[Text]:
    """What installed packages say of themselves, and under which licence they are."""
    for package in metadata.distributions():
        name = package.metadata["Name"]
        yield Text(f"{name}/METADATA", str(package.metadata.get_payload()))
        for file in package.files or ():
            if ".dist-info" in file.parts[0] and _LICENCE.match(file.name):
                path = Path(str(file.locate()))
                if path.is_file():
                    yield Text(f"{name}/{'/'.join(file.parts[1:])}", _read(path))


def _topics() -> Iterator[Text]:
    for name, content in topics.items():
        yield Text(f"topics/{name}", content)


def _docstrings() -> Iterator[Text]:
    """Those of each file as one text. Nothing is imported."""
    for package in DOCUMENTED:
        spec = importlib.util.find_spec(package)
        for folder in (spec and spec.submodule_search_locations) or ():
            for file in python_files(Path(folder), TESTS):
                name = f"{package}/{file.relative_to(folder).as_posix()}"
                yield Text(name, docstrings_of(_read(file)))


def docstrings_of(source: str) -> str:
    """The docstrings of a module and all that is in it; empty where it cannot be read."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return ""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = (node for node in ast.walk(tree) if isinstance(node, documented))
    return "\n\n".join(filter(None, map(ast.get_docstring, nodes)))
