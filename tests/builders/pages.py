# SPDX-License-Identifier: Apache-2.0
"""README, CONTRIBUTING and docs as readers meet them: their fenced blocks, and code in a line."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).parents[2]

GPUS = "gpus"
"""Behind the language of a fence: its commands need GPUs, and no test runs them."""

_FENCE = re.compile(r"(?P<indent> *)(?P<ticks>`{3,}|~{3,})(?P<info>[^`]*)")
_IN_A_LINE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_PROMPT = "$ "


class Block(NamedTuple):
    """What stands between two fences."""

    page: str
    """From the root of the repository."""
    line: int
    """Of the first fence, from 1."""
    language: str
    """The first word behind it."""
    marks: tuple[str, ...]
    """The words after it, which GitHub and MyST show to nobody."""
    text: str

    @property
    def where(self) -> str:
        """As an editor opens it."""
        return f"{self.page}:{self.line}"

    @property
    def needs_gpus(self) -> bool:
        """Whether its page says so."""
        return GPUS in self.marks


def pages() -> list[str]:
    """From the root of the repository."""
    inside = sorted(REPOSITORY.glob("docs/**/*.md"))
    found = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *inside]
    return [file.relative_to(REPOSITORY).as_posix() for file in found]


def pages_with_commands() -> list[str]:
    """Those that have something to type."""
    return [page for page in pages() if shell_blocks(blocks_of(page))]


def text_of(page: str) -> str:
    """All of a page."""
    return (REPOSITORY / page).read_text(encoding="utf-8")


def blocks_of(page: str, text: str | None = None) -> list[Block]:
    """The fenced blocks of a page, in its order.

    Args:
        page: From the root of the repository.
        text: Its content, instead of that of the file.

    Raises:
        ValueError: A fence is not closed.
    """
    lines = iter(enumerate((text_of(page) if text is None else text).splitlines(), 1))
    return [
        _block(page, number, found, lines)
        for number, line in lines
        if (found := _FENCE.fullmatch(line))
    ]


def _block(page: str, number: int, fence: re.Match[str], lines: Iterator[tuple[int, str]]) -> Block:
    inside = []
    for _, line in lines:
        if line.strip() == fence["ticks"]:
            language, *marks = fence["info"].split() or [""]
            return Block(page, number, language, tuple(marks), "".join(inside))
        inside.append(line.removeprefix(fence["indent"]) + "\n")
    raise ValueError(f"{page}:{number}: this fence is not closed: add {fence['ticks']} below it")


def shell_blocks(blocks: list[Block]) -> list[Block]:
    """Those that are typed into a shell; of a session, what stands behind its prompts."""
    found = []
    for block in blocks:
        typed = [line for line in block.text.splitlines() if line.startswith(_PROMPT)]
        if block.language == "bash":
            found.append(block)
        elif not block.language and typed:
            text = "".join(line.removeprefix(_PROMPT) + "\n" for line in typed)
            found.append(block._replace(language="bash", text=text))
    return found


def code_in_lines(page: str) -> Iterator[tuple[int, str]]:
    """Code that stands in a line of text, with the number of that line."""
    for number, line in _lines_of_text(page):
        yield from ((number, code) for code in _IN_A_LINE.findall(line))


def text_above(block: Block) -> str:
    """From the heading that a block stands below to the block, without other blocks."""
    lines = [line for number, line in _lines_of_text(block.page) if number < block.line]
    heading = max(at for at, line in enumerate(lines) if line.startswith("#"))
    return "\n".join(lines[heading:])


def _lines_of_text(page: str) -> Iterator[tuple[int, str]]:
    fenced = False
    for number, line in enumerate(text_of(page).splitlines(), 1):
        if _FENCE.fullmatch(line):
            fenced = not fenced
        elif not fenced:
            yield number, line
