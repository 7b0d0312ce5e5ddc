# SPDX-License-Identifier: Apache-2.0
"""Numbers of a page that no claim covers: a measured figure is one that a file stands behind.

Looked at are paragraphs, items of lists and rows of tables; code, headings and where links lead to
are not. A number is looked at where a unit follows it, or where it has a fraction; in a row, all
behind the first cell are.
"""

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

NUMBER = r"\d+(?:,\d{3})*(?:\.\d+)?"
UNIT = (
    r"(?: ?(?:ms|us|s|%|[kMGT]i?B(?:/s)?|times|points?|seconds|minutes|hours"
    rf"|rearrangements|slots|answers|of {NUMBER})|x)(?![\w-])"
)
SERIES = rf"{NUMBER}(?:(?:(?:,| and| to| or) |-){NUMBER})*"
BEFORE, BEHIND = r"(?<![\w.-])", r"(?!\.?\d|\w)"
WITH_UNIT = re.compile(rf"{BEFORE}{SERIES}{UNIT}")
FRACTION = re.compile(rf"{BEFORE}\d+(?:,\d{{3}})*\.\d+{BEHIND}")
IN_A_CELL = re.compile(rf"{BEFORE}{NUMBER}{BEHIND}")
NOT_SAID = re.compile(r"`[^`]*`|\]\([^)]*\)")
"""Code, and where a link leads to."""


class Exempt(NamedTuple):
    """A text of a page whose numbers no file has."""

    text: str
    """With enough around the number to be in the page once."""
    why: str
    """A setting, a requirement, or where the figure is kept instead."""


def unclaimed(page: str, claimed: Iterable[str], exempt: Iterable[Exempt]) -> Iterator[str]:
    """Numbers that nothing covers, and exemptions that are not needed, each as a sentence.

    Args:
        page: Its text.
        claimed: Texts of its claims.
        exempt: Its exemptions.
    """
    exempt = list(exempt)
    texts = [*claimed, *(one.text for one in exempt)]
    used: set[str] = set()
    for block in blocks(page):
        spans = [(text, *span) for text in texts for span in occurrences(block, text)]
        for number in numbers(block):
            first, last = number.span()
            around = [text for text, start, end in spans if start <= first and last <= end]
            used.update(around)
            if not around:
                yield f"'{number.group()}' comes from no file: {near(block, number)}"
    for one in exempt:
        if one.text not in used:
            yield f"the exemption '{one.text}' ({one.why}) covers no number: take it out"


def blocks(page: str) -> Iterator[str]:
    """Rows, paragraphs and items of a page, each in one line."""
    lines: list[str] = []
    fenced = False
    for line in [*page.splitlines(), ""]:
        starts = line.lstrip().startswith(("|", "- ", "#", "```", "<!--")) or not line.strip()
        if starts and lines:
            yield " ".join(" ".join(lines).split())
            lines = []
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif line.strip() and not fenced and not line.startswith("#"):
            lines.append(line)


def occurrences(text: str, part: str) -> Iterator[tuple[int, int]]:
    """Where a part stands, as first and behind the last."""
    part = " ".join(part.split())
    at = text.find(part)
    while at >= 0:
        yield at, at + len(part)
        at = text.find(part, at + 1)


def numbers(block: str) -> Iterator[re.Match[str]]:
    """Those that are looked at, each once."""
    said = NOT_SAID.sub(lambda match: "`" * len(match.group()), block)
    found = [one for pattern in (WITH_UNIT, FRACTION) for one in pattern.finditer(said)]
    if said.startswith("|"):
        found += IN_A_CELL.finditer(said, said.find("|", 1))
    last = -1
    for one in sorted(found, key=lambda match: (match.start(), -match.end())):
        if one.start() >= last:
            last = one.end()
            yield one


def near(block: str, number: re.Match[str], words: int = 40) -> str:
    """What stands around a number."""
    return f"... {block[max(0, number.start() - words) : number.end() + words]} ..."
